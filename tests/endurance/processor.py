"""The record processor of the endurance test: checkpoints every batch and reports every message with its time.

argv: PORT DAEMON
Times are read from the system's monotonic clock, so that the reports of all children have a common order.
"""
import base64
import json
import os
import socket
import sys
import time

port, daemon = int(sys.argv[1]), sys.argv[2]


def now():
    return time.monotonic_ns() // 1000


test = socket.create_connection(("127.0.0.1", port)).makefile("w")
child = f"{os.getpid()}-{now()}"
shard = "?"
last = None


def report(what, at, **more):
    body = {"at": at, "child": child, "daemon": daemon, **more}
    test.write(json.dumps({"pid": os.getpid(), "shard": shard, "what": what, "body": body}) + "\n")
    test.flush()


def say(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def checkpoint(action, sequence, sub):
    asked = now()
    say({"action": "checkpoint", "sequenceNumber": None, "subSequenceNumber": None})
    answer = sys.stdin.readline()
    if not answer:
        # The daemon is gone, so the result of the checkpoint remains unknown.
        os._exit(0)
    error = json.loads(answer).get("error")
    report("checkpointed", now(), of=action, asked=asked, sequence=sequence, sub=sub, error=error)


def serve():
    global shard, last
    report("hello", now())
    for line in sys.stdin:
        at = now()
        message = json.loads(line)
        action = message["action"]
        if action == "initialize":
            shard = message["shardId"]
            report(action, at, sequence=message["sequenceNumber"], sub=message["subSequenceNumber"])
        elif action == "processRecords":
            records = message["records"]
            shown = [
                [r["sequenceNumber"], r["subSequenceNumber"], int(base64.b64decode(r["data"]))] for r in records
            ]
            report(action, at, records=shown)
            # Simulated work, long enough that a fault of the daemon interrupts some batches.
            time.sleep(0.1)
            if shown:
                last = shown[-1]
                checkpoint(action, last[0], last[1])
        else:
            report(action, at)
            if action == "shardEnded":
                checkpoint(action, "SHARD_END", 0)
            elif action == "shutdownRequested" and last:
                checkpoint(action, last[0], last[1])
        say({"action": "status", "responseFor": action})


try:
    serve()
except OSError:
    # A broken pipe: the daemon or the test is gone.
    os._exit(0)
