#!/usr/bin/env bash
# kinesis-local.sh DIR PORT TLS_PORT   replaces itself by npm's kinesis-local, on loopback, so its pid is the server's.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$1/node_modules/kinesis-local"
export KINESIS_MOCK_PLAIN_PORT=$2 KINESIS_MOCK_TLS_PORT=$3 SHARD_LIMIT=1000 LOG_LEVEL=WARN
# By default its changes of state take half a second each.
export CREATE_STREAM_DURATION=50ms DELETE_STREAM_DURATION=50ms SPLIT_SHARD_DURATION=50ms MERGE_SHARDS_DURATION=50ms
export UPDATE_SHARD_COUNT_DURATION=50ms REGISTER_STREAM_CONSUMER_DURATION=50ms
exec node --require "$here/loopback.cjs" main.js
