#!/usr/bin/env python3
"""A record processor for multilangd without any library: counts words, checkpoints every batch.

One JSON object a line comes on stdin; each is answered with a status on stdout. Whatever is printed
to stderr goes to the daemon's log.
"""
import base64
import collections
import json
import sys


def say(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def checkpoint():
    """Stores everything delivered so far; true if it is stored."""
    say({"action": "checkpoint"})
    answer = json.loads(sys.stdin.readline())
    if answer["error"]:
        print("checkpoint refused:", answer["error"], file=sys.stderr)
    return not answer["error"]


def main():
    shard, counts, seen = "?", collections.Counter(), 0
    for line in sys.stdin:
        message = json.loads(line)
        action = message["action"]
        if action == "initialize":
            shard = message["shardId"]
            print(f"starting after {message['sequenceNumber']}", file=sys.stderr)
        elif action == "processRecords":
            for record in message["records"]:
                word = base64.b64decode(record["data"]).decode("utf-8", "replace").split(" ")[0]
                counts[word] += 1
                seen += 1
            checkpoint()
        elif action in ("shardEnded", "shutdownRequested"):
            checkpoint()
            top = ", ".join(f"{word} {count}" for word, count in counts.most_common(3))
            print(f"{action}: {seen} records here, most of all {top or 'nothing'}", file=sys.stderr)
        say({"action": "status", "responseFor": action})


main()
