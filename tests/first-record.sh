#!/usr/bin/env bash
# first-record.sh   measures how long `cargo run -- local` takes until its first record is delivered, then stops it.
set -euo pipefail
cd "$(dirname "$0")/.."
output=$(mktemp)
# cargo replaces itself by the program that it runs, so the pid is the daemon's.
cargo run -- local --kinesis-port 0 --dynamodb-port 0 >"$output" 2>/dev/null &
daemon=$!
until grep -q 'delivered [1-9]' "$output"; do
  kill -0 "$daemon"
  sleep 0.2
done
echo "first record delivered within $SECONDS s"
# A background job of a shell ignores SIGINT.
kill -TERM "$daemon"
wait "$daemon"
rm "$output"
