"""A record processor with one planted fault, for `multilangd test`. Without a fault it is correct.

argv: [FAULT [ARGUMENT]]
"""
import base64
import json
import os
import sys
import time

fault = sys.argv[1] if len(sys.argv) > 1 else ""
argument = sys.argv[2] if len(sys.argv) > 2 else ""
RETRIED = ("ThrottlingException", "KinesisClientLibDependencyException")


def write(text):
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


def send(message):
    write(json.dumps(message) + "\n")


def read():
    if fault == "reads-pieces":
        return os.read(0, 1 << 16)
    return sys.stdin.buffer.readline()


def checkpoint(sequence=None, sub=None):
    for _ in range(3):
        send({"action": "checkpoint", "sequenceNumber": sequence, "subSequenceNumber": sub})
        error = json.loads(read())["error"]
        if fault == "dies-on-lost-lease" and error == "ShutdownException":
            sys.exit("the lease is lost")
        if error not in RETRIED:
            return
        if fault == "dies-on-throttling":
            sys.exit("checkpoint failed: " + error)
        if fault == "never-retries":
            return


def has(records):
    for record in records:
        data = base64.b64decode(record["data"])
        if fault == "dies-on-unicode":
            record["partitionKey"].encode("ascii")
        if fault == "dies-on-binary":
            data.decode("utf-8")
        if fault == "dies-on-empty" and not data:
            sys.exit("no data")
        if fault == "dies-on-data" and data == argument.encode():
            sys.exit("found it")
    if fault == "dies-on-no-records":
        records[0]
    if fault == "dies-on-sub-sequence" and any(record["subSequenceNumber"] for record in records):
        sys.exit("an aggregate")
    if fault == "checkpoints-ahead":
        checkpoint("9" * 56)
    elif records and fault not in ("never-checkpoints", "checkpoints-late"):
        checkpoint(records[-1]["sequenceNumber"], records[-1]["subSequenceNumber"])


while True:
    line = read()
    if not line:
        break
    if fault == "limits-lines" and len(line) > 4 << 20:
        sys.exit("line too long")
    message = json.loads(line)
    action = message["action"]
    if action == "initialize" and fault == "needs-a-number":
        int(message["sequenceNumber"])
    if action == "initialize" and fault == "checkpoints-at-start":
        checkpoint()
    if action == "processRecords":
        has(message["records"])
    if action == "shutdownRequested" or action == "shardEnded" and fault != "forgets-the-end":
        checkpoint()
    if action == "leaseLost" and fault == "ignores-lease-lost":
        continue
    if action in ("leaseLost", "shutdownRequested") and fault == "leaves-at-" + action:
        sys.exit(0)
    if action == "processRecords" and fault == "prints":
        write("processed a batch\n")
    if action == "processRecords" and fault == "prints-null":
        write("null\n")
    if action == "processRecords" and fault == "prints-half-a-line":
        write("processed a batch")
    if action == "processRecords" and fault == "closes-stdout":
        os.close(1)
        continue
    answer = {"action": "status", "responseFor": action}
    if action == "processRecords" and fault == "answers-wrongly":
        answer["responseFor"] = "initialize"
    if action == "shutdownRequested" and fault == "answers-shutdown-wrongly":
        answer["responseFor"] = "shutdown"
    if fault == "adds-a-field":
        answer["ok"] = True
    send(answer)
    if action == "processRecords" and fault == "answers-twice":
        send(answer)
    if action == "processRecords" and fault == "checkpoints-late":
        send({"action": "checkpoint"})
    if action == "processRecords" and fault == "leaves":
        sys.exit(0)
while fault == "never-ends":
    time.sleep(60)
if fault == "ends-with-1":
    sys.exit(1)
