#!/usr/bin/env bash
# kinesis-local.sh DIR PORT TLS_PORT   execs kinesis-local of npm on loopback addresses; the pid of this script is the pid of the endpoint.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$1/node_modules/kinesis-local"
export KINESIS_MOCK_PLAIN_PORT=$2 KINESIS_MOCK_TLS_PORT=$3 SHARD_LIMIT=1000 LOG_LEVEL=WARN
# By default each of its state changes takes half a second.
export CREATE_STREAM_DURATION=50ms DELETE_STREAM_DURATION=50ms SPLIT_SHARD_DURATION=50ms MERGE_SHARDS_DURATION=50ms
export UPDATE_SHARD_COUNT_DURATION=50ms REGISTER_STREAM_CONSUMER_DURATION=50ms
exec node --require "$here/loopback.cjs" main.js
