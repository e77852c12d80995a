#!/usr/bin/env bash
# run.sh   builds the image from scratch and runs the daemon in it: 20,000 records of an embedded stream are delivered
# and checkpointed, SIGTERM stops it cleanly, its leases are released. Needs buildah and root (it runs with chroot
# isolation, so the container has this machine's loopback), python3, curl, ps and unshare.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo build --quiet
IMAGE_TOOL=none docker/image.sh target/image
# Symbols are a fifth of a binary: a section of type SHT_SYMTAB shows that they were not stripped.
python3 - target/image/multilangd <<'PY'
import struct, sys
elf = open(sys.argv[1], "rb").read()
at, size, count = struct.unpack_from("<Q", elf, 40)[0], *struct.unpack_from("<HH", elf, 58)
kinds = [struct.unpack_from("<I", elf, at + number * size + 4)[0] for number in range(count)]
assert 2 not in kinds, "the binary of the image is not stripped"
PY
. tests/support/started.sh
read -r kinesis dynamodb status <<<"$(free_ports 3)"
export STORAGE_DRIVER=vfs AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local

buildah build --quiet --isolation chroot -t multilangd -f docker/Dockerfile target/image
echo "image: $(buildah images --format '{{.Size}}' localhost/multilangd:latest)"
rustc --edition 2024 -O -C target-feature=+crt-static -o "$dir/child" tests/image/child.rs
cat >"$dir/my.properties" <<PROPERTIES
executableName = /child
streamName = orders
applicationName = in-a-container
AWSCredentialsProvider = DefaultCredentialsProvider
regionName = eu-central-1
initialPositionInStream = TRIM_HORIZON
metricsLevel = NONE
kinesisEndpoint = http://127.0.0.1:$kinesis
dynamoDBEndpoint = http://127.0.0.1:$dynamodb
PROPERTIES
chmod -R a+rX "$dir"
seq 1 20000 >"$dir/lines.txt"
# The embedded endpoints, and their own daemon for another application.
sed -e 's/in-a-container/beside/' -e "s#/child#$dir/child#" -e '/Endpoint/d' "$dir/my.properties" >"$dir/beside.properties"
target/debug/multilangd local "$dir/beside.properties" --shards 4 --put "$dir/lines.txt" --kinesis-port $kinesis \
  --dynamodb-port $dynamodb --status off >"$dir/endpoints.log" 2>&1 &
started+=($!)
until_true "the endpoints have the records" grep -q "put 20000 lines" "$dir/endpoints.log"

container=$(buildah from multilangd)
trap 'end_all; buildah rm "$container" >/dev/null' EXIT
buildah copy --quiet "$container" "$dir/child" /child
buildah copy --quiet "$container" "$dir/my.properties" /my.properties
begin=$(date +%s%N)
buildah run --isolation chroot --env AWS_ACCESS_KEY_ID=local --env AWS_SECRET_ACCESS_KEY=local \
  --env MULTILANGD_STATUS=127.0.0.1:$status "$container" -- /multilangd /my.properties >"$dir/daemon.log" 2>&1 &
run=$!
started+=("$run")
delivered() {
  curl -sf http://127.0.0.1:$status/status | python3 -c '
import json, sys
shards = json.load(sys.stdin)["shards"]
done = [s for s in shards if s["checkpoint"]["position"] == s["delivered"]["position"]]
sys.exit(sum(s["delivered"]["records"] for s in shards) != 20000 or len(done) != 4)'
}
until_true "all records are delivered and checkpointed" delivered
echo "after $((($(date +%s%N) - begin) / 1000000)) ms"
# The pid of the daemon itself, a descendant of the container tools.
pid=
for process in /proc/[0-9]*; do
  if [ "$(tr '\0' ' ' <"$process/cmdline" 2>/dev/null)" = "/multilangd /my.properties " ]; then pid=${process#/proc/}; fi
done
grep VmRSS "/proc/$pid/status"
begin=$(date +%s%N)
kill -TERM "$pid"
code=0
wait "$run" || code=$?
echo "SIGTERM: exit code $code after $((($(date +%s%N) - begin) / 1000000)) ms"
test "$code" = 0
grep -q '"event":"worker_stopped"' "$dir/daemon.log"
target/debug/multilangd leases "$dir/my.properties" --json --watch 0 --log error >"$dir/leases.json"
python3 - "$dir/leases.json" <<'PY'
import json, sys
leases = json.load(open(sys.argv[1]))["leases"]
assert len(leases) == 4 and all(lease["owner"] is None for lease in leases), leases
print("all four leases are released")
PY

# As process 1 the daemon reaps the orphans of record processors.
cat >"$dir/leaver.sh" <<'SH'
(setsid sleep 1 &)
exec "$1"
SH
sed -e 's/in-a-container/process-1/' -e "s#/child#sh $dir/leaver.sh $dir/child#" "$dir/my.properties" >"$dir/first.properties"
unshare --fork --pid --mount-proc target/debug/multilangd "$dir/first.properties" --status off >"$dir/first.log" 2>&1 &
started+=($!)
until_true "the daemon is process 1" pgrep -P $!
first=$(pgrep -P $!)
left() { ps -o stat=,comm= --ppid "$first" | grep -c '^Z.* sleep'; }
some_left() { [ "$(left)" -gt 0 ]; }
none_left() { [ "$(left)" = 0 ]; }
until_true "record processors have left orphans" some_left
until_true "the orphans are reaped" none_left
echo "process 1 reaps orphans"
kill -TERM "$first"
