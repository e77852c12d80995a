#!/bin/sh
# check.sh COMMAND [ARGUMENT...]   tests a record processor; COMMAND and its arguments contain no blanks
#
# 1. multilangd test plays lives of a shard against it and checks its answers; --strict fails on notes, too.
# 2. multilangd local delivers 1,000 records to it, on an embedded stream, and waits until all are checkpointed.
#
# RESULTS       folder for the JUnit report (default: results)
# TEST_OPTIONS  further options of multilangd test, such as --records FILE
set -eu
[ $# -gt 0 ] || { echo "usage: check.sh COMMAND [ARGUMENT...]" >&2; exit 64; }

results=${RESULTS:-results}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$results"
name=$(printf '%s' "$*" | tr -c 'A-Za-z0-9' '-')

# shellcheck disable=SC2086 # options are words
multilangd test --strict ${TEST_OPTIONS-} --junit "$results/$name.xml" -- "$@"

cat > "$work/orders.properties" <<PROPERTIES
executableName = $*
streamName = orders
applicationName = order-reader
AWSCredentialsProvider = DefaultCredentialsProvider
initialPositionInStream = TRIM_HORIZON
PROPERTIES
seq 1 1000 > "$work/lines.txt"
multilangd local "$work/orders.properties" --put "$work/lines.txt" --exit-when-done \
  --kinesis-port 0 --dynamodb-port 0 --status off --log warn
