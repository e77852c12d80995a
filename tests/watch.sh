#!/usr/bin/env bash
# watch.sh [PICTURE]   runs two daemons on one machine, with one of their eight shards stuck, scraped by a real
# Prometheus; writes a browser's screenshot of the status page to PICTURE. Needs python3, curl, prometheus and promtool,
# and chromium for the screenshot. Everything listens on loopback and is stopped with this script.
set -euo pipefail
cd "$(dirname "$0")/.."
picture=${1:-}
cargo build --quiet
. tests/support/started.sh

cat >"$dir/processor.py" <<'PY'
import json, os, sys, time

def say(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()

for line in sys.stdin:
    message = json.loads(line)
    action = message["action"]
    if action == "processRecords" and message["records"]:
        try:
            os.close(os.open(sys.argv[1], os.O_CREAT | os.O_EXCL))
            time.sleep(3600)
        except FileExistsError:
            pass
    if action == "processRecords" and message["records"] or action in ("shardEnded", "shutdownRequested"):
        say({"action": "checkpoint", "sequenceNumber": None, "subSequenceNumber": None})
        sys.stdin.readline()
    say({"action": "status", "responseFor": action})
PY
cat >"$dir/my.properties" <<PROPERTIES
executableName = python3 $dir/processor.py $dir/stuck
streamName = orders
applicationName = order-reader
AWSCredentialsProvider = DefaultCredentialsProvider
regionName = eu-central-1
initialPositionInStream = TRIM_HORIZON
metricsLevel = NONE
PROPERTIES
seq 1 20000 >"$dir/lines.txt"
export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local

read -r kinesis dynamodb first second prometheus <<<"$(free_ports 5)"
target/debug/multilangd local "$dir/my.properties" --shards 8 --put "$dir/lines.txt" --kinesis-port $kinesis \
  --dynamodb-port $dynamodb --status $first --stuck-after-millis 4000 --set workerId=first >"$dir/first.log" 2>&1 &
started+=($!)
until_true "the first daemon is ready" curl -sf "http://127.0.0.1:$first/readyz"
stuck() { curl -sf "http://127.0.0.1:$first/metrics" | grep -q 'state="stuck"} 1'; }
until_true "one shard is stuck" stuck
idle() { [ "$(curl -sf "http://127.0.0.1:$first/metrics" | grep -c 'state="idle"} 1')" = 7 ]; }
until_true "seven shards are idle" idle
curl -sf "http://127.0.0.1:$first/metrics" | promtool check metrics
echo "promtool accepts the metrics"
python3 tests/pictures.py --like "http://127.0.0.1:$first/status"
if [ -n "$picture" ]; then
  chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1180,690 --virtual-time-budget=6000 \
    --screenshot="$picture" "http://127.0.0.1:$first/" >"$dir/chromium.log" 2>&1
  echo "picture: $(stat -c %s "$picture") bytes"
fi

sed -e "s/9465/$first/" -e "s/9466/$second/" deploy/prometheus.yaml >"$dir/prometheus.yaml"
cp deploy/alerts.yaml "$dir/"
promtool check config "$dir/prometheus.yaml" >/dev/null
promtool test rules tests/alerts.yaml
prometheus --config.file "$dir/prometheus.yaml" --storage.tsdb.path "$dir/tsdb" --web.listen-address 127.0.0.1:$prometheus \
  >"$dir/prometheus.log" 2>&1 &
started+=($!)
# ask QUERY VALUE   whether Prometheus returns this value for the query.
ask() {
  local answer
  answer=$(curl -sf -G --data-urlencode "query=$1" "http://127.0.0.1:$prometheus/api/v1/query")
  [ "$(python3 -c 'import json,sys; r = json.loads(sys.argv[1])["data"]["result"]; print(r[0]["value"][1] if r else "")' "$answer")" = "$2" ]
}
# Before the second daemon starts: it may acquire the stuck shard, which then continues there.
until_true "Prometheus reports the stuck shard" ask 'sum(multilangd_shard_state{state="stuck"})' 1
target/debug/multilangd "$dir/my.properties" --status $second --set workerId=second \
  --set kinesisEndpoint=http://127.0.0.1:$kinesis --set dynamoDBEndpoint=http://127.0.0.1:$dynamodb >"$dir/second.log" 2>&1 &
started+=($!)
until_true "Prometheus scrapes both daemons" ask 'sum(up{job="multilangd"})' 2
until_true "the two daemons own all eight leases" ask 'sum(multilangd_leases_held)' 8
until_true "each daemon has its share" ask "count(multilangd_leases_held > 2)" 2
echo "all conditions reached"
