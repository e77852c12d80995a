#!/usr/bin/env python3
"""A record processor without any library: counts words and checkpoints after every batch.

multilangd starts one such process for each shard. Each line on stdin is a JSON message. The processor acts on it
and answers with a status line on stdout. Lines on stderr go to the daemon's log.
"""
import base64
import collections
import json
import sys
import time

# Checkpoint errors that pass: the checkpoint is requested again after a pause.
RETRIED = ("ThrottlingException", "KinesisClientLibDependencyException")


def send(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def checkpoint():
    """Asks the daemon to store the position after the last delivered record, and waits for its answer."""
    for pause in (1, 2, 4, None):
        send({"action": "checkpoint"})
        line = sys.stdin.readline()
        if not line:
            sys.exit("stdin ended before the checkpoint was answered")
        error = json.loads(line)["error"]
        if error:
            print("checkpoint failed:", error, file=sys.stderr)
        if error not in RETRIED or pause is None:
            return
        time.sleep(pause)


def main():
    counts = collections.Counter()
    for line in sys.stdin:
        message = json.loads(line)
        action = message["action"]
        if action == "initialize":
            print(f"{message['shardId']}: starting after {message['sequenceNumber']}", file=sys.stderr)
        elif action == "processRecords":
            for record in message["records"]:
                text = base64.b64decode(record["data"]).decode("utf-8", "replace")
                counts[text.split(" ")[0]] += 1
            checkpoint()
        elif action in ("shardEnded", "shutdownRequested"):
            checkpoint()
            top = ", ".join(f"{word} {count}" for word, count in counts.most_common(3))
            print(f"{action}: {sum(counts.values())} records; most frequent: {top or 'none'}", file=sys.stderr)
        # leaseLost needs no action: another worker owns the shard, and a checkpoint would fail.
        send({"action": "status", "responseFor": action})


main()
