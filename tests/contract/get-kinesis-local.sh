#!/usr/bin/env bash
# get-kinesis-local.sh DIR   puts npm's kinesis-local, an independent Kinesis endpoint, under DIR.
set -euo pipefail
[ -d "$1/node_modules/kinesis-local" ] || npm install --silent --no-audit --no-fund --prefix "$1" kinesis-local@0.6.2 >/dev/null
test -f "$1/node_modules/kinesis-local/main.js"
