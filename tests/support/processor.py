"""A scripted record processor for tests: reports every message to the test over a socket.

argv: PORT BEHAVIOUR...
  each      checkpoint every batch (the default is never)
  end       checkpoint in shutdownRequested and shardEnded
  second    checkpoint the second record of each batch by its numbers
  dies      exit with code 3 at every batch
  dies-once=FILE  the same, but only as long as FILE does not exist
  dies-at-start  exit with code 4 before anything else
  ignores-stop  keep running when stdin ends, and ignore SIGTERM
  hangs     never answer a batch
  hangs-once=FILE  the first child, which creates FILE, answers its batch only once FILE.go exists
  poison=FILE  exit with code 1 and a line on stderr at a record whose data is "poison", as long as FILE does not exist
  swallows  at a record whose data is "poison", write what amazon_kclpy writes to stderr at an exception, and answer
  no-end=FILE  do not checkpoint in shardEnded, as long as FILE does not exist
  limit     report the soft limit of open files
  environment  report the variables by which the daemon describes the shard
  as=WORKER  add the worker to the report of initialize
"""
import json
import os
import signal
import socket
import sys
import time

port, behaviour = int(sys.argv[1]), sys.argv[2:]
if "dies-at-start" in behaviour:
    sys.exit(4)
if "ignores-stop" in behaviour:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
test = socket.create_connection(("127.0.0.1", port)).makefile("w")
shard = "?"


def report(what, body=None):
    test.write(json.dumps({"pid": os.getpid(), "shard": shard, "what": what, "body": body}) + "\n")
    test.flush()


def say(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def checkpoint(sequence=None, sub=None):
    say({"action": "checkpoint", "sequenceNumber": sequence, "subSequenceNumber": sub})
    answer = json.loads(sys.stdin.readline())
    report("checkpointed", answer)


def dies():
    if "dies" in behaviour:
        return True
    for word in behaviour:
        if word.startswith("dies-once=") and not os.path.exists(word[10:]):
            open(word[10:], "w").close()
            return True
    return False


def unless_exists(option):
    return any(word.startswith(option) and not os.path.exists(word[len(option):]) for word in behaviour)


def hang_once():
    for word in behaviour:
        if word.startswith("hangs-once="):
            try:
                os.close(os.open(word[11:], os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            print("hangs until the file exists", file=sys.stderr, flush=True)
            report("hangs")
            while not os.path.exists(word[11:] + ".go"):
                time.sleep(0.05)


report("hello")
if "limit" in behaviour:
    import resource
    report("limit", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
if "environment" in behaviour:
    known = ("APPLICATION_NAME", "STREAM_NAME", "STREAM_ARN", "SHARD_ID", "LEASE_KEY", "WORKER_ID", "CHILD_ATTEMPT")
    report("environment", {name: os.environ.get("MULTILANGD_" + name) for name in known})
for line in sys.stdin:
    message = json.loads(line)
    action = message["action"]
    if action == "initialize":
        # In a table of several streams, the shards of two can have one id.
        shard = os.environ.get("MULTILANGD_LEASE_KEY", message["shardId"])
        if not shard.endswith(message["shardId"]):
            sys.exit(6)
        message["worker"] = next((word[3:] for word in behaviour if word.startswith("as=")), None)
    report(action, message)
    if action == "processRecords":
        if dies():
            os._exit(3)
        if unless_exists("poison=") and any(record["data"] == "cG9pc29u" for record in message["records"]):
            sys.stderr.write("Traceback (most recent call last):\nValueError: cannot parse poison\n")
            sys.stderr.flush()
            os._exit(1)
        if "swallows" in behaviour and any(record["data"] == "cG9pc29u" for record in message["records"]):
            sys.stderr.write("Caught exception from action dispatch: cannot parse poison")
            sys.stderr.write("Traceback (most recent call last):\nValueError: cannot parse poison\n")
            sys.stderr.flush()
            say({"action": "status", "responseFor": action})
            continue
        hang_once()
        while "hangs" in behaviour:
            time.sleep(60)
        if "each" in behaviour:
            checkpoint()
        if "second" in behaviour and len(message["records"]) > 1:
            record = message["records"][1]
            checkpoint(record["sequenceNumber"], record["subSequenceNumber"])
    if action == "shardEnded" and unless_exists("no-end="):
        say({"action": "status", "responseFor": action})
        continue
    if action in ("shutdownRequested", "shardEnded") and ("end" in behaviour or "each" in behaviour):
        checkpoint()
    say({"action": "status", "responseFor": action})
while "ignores-stop" in behaviour:
    time.sleep(60)
