#!/usr/bin/env bash
# get-kinesis-local.sh DIR   installs kinesis-local of npm, an independent Kinesis endpoint, in DIR.
set -euo pipefail
[ -d "$1/node_modules/kinesis-local" ] || npm install --silent --no-audit --no-fund --prefix "$1" kinesis-local@0.6.2 >/dev/null
test -f "$1/node_modules/kinesis-local/main.js"
