"""A record processor that misbehaves once, at the configured shard and moment. Otherwise it is correct: it
checkpoints the last record of each batch by its numbers, and the end of its shard.

argv: PORT FOLDER [SHARD@MOMENT=FAULT ...]

MOMENT is an action of the protocol, or idle (just after the answer to processRecords). The first child of the
shard that reaches the moment performs the fault (a file in FOLDER marks it), and reports it before.

  exit:N           exit with this code
  signal:N         kill itself by this signal
  answer:NAME      answer with NAME instead of the action
  answer-null      answer with null
  say:BASE64       write these bytes to stdout, then continue
  close-stdout     close stdout and keep running until stdin ends
  close-stdin      close stdin, answer, and keep running
  unread           stop reading stdin and keep running
  hang             never answer
  stubborn         never answer, ignore SIGTERM, keep running when stdin ends
  grandchild       start a process in a session of its own that holds all pipes, and exit
  noisy-grandchild  the same, and that process prints noise to stdout without end
  stderr:BYTES     write this many bytes in lines to stderr, then continue
  endless:BYTES    the same in one line without an end
  chatter:LINES    print this many lines of noise to stdout, then continue
  long:BYTES       print a line of this many bytes to stdout, then continue
  late             checkpoint the last record without reading the answer, which arrives with the next action
  waits:FILE       wait until FILE exists, then continue as with ask
  checkpoints:N    request N checkpoints before reading an answer, then continue
  ask              checkpoint without a number here and report the answer, then continue
  ask:NUMBER       the same with this sequence number, which can be a sentinel
"""
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time

port, folder, plan = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
connection = socket.create_connection(("127.0.0.1", port))
test = connection.makefile("w")
shard = "?"


def report(what, body=None):
    test.write(json.dumps({"pid": os.getpid(), "shard": shard, "what": what, "body": body}) + "\n")
    test.flush()


def write(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def say(message):
    write(json.dumps(message).encode() + b"\n")


def checkpoint(sequence=None, sub=None):
    say({"action": "checkpoint", "sequenceNumber": sequence, "subSequenceNumber": sub})
    answer = json.loads(sys.stdin.readline())
    report("checkpointed", answer)


def keep_running():
    while True:
        time.sleep(60)


def due(moment):
    """The fault to perform at this moment, unless another child has performed it."""
    for word in plan:
        place, fault = word.split("=", 1)
        if place == shard + "@" + moment:
            try:
                os.close(os.open(os.path.join(folder, place), os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            report("fault", {"moment": moment, "fault": fault})
            return fault
    return None


unread_answers = 0


def do(fault, message):
    """Performs a fault. Returns whether the action still needs its answer."""
    global unread_answers
    action = message["action"]
    name, _, argument = fault.partition(":")
    if name == "exit":
        os._exit(int(argument))
    elif name == "signal":
        os.kill(os.getpid(), int(argument))
        keep_running()
    elif name == "answer":
        say({"action": "status", "responseFor": argument})
        return False
    elif name == "answer-null":
        say({"action": "status", "responseFor": None})
        return False
    elif name == "say":
        write(base64.b64decode(argument))
    elif name == "close-stdout":
        os.close(1)
        while sys.stdin.readline():
            pass
        os._exit(0)
    elif name == "close-stdin":
        os.close(0)
        say({"action": "status", "responseFor": action})
        keep_running()
    elif name in ("unread", "hang"):
        keep_running()
    elif name == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        keep_running()
    elif name in ("grandchild", "noisy-grandchild"):
        keeper = [sys.executable, "-S", "-E", __file__, str(port), name, shard]
        subprocess.Popen(keeper, start_new_session=True)
        os._exit(0)
    elif name == "stderr":
        line = b"e" * 99 + b"\n"
        for _ in range(int(argument) // 100):
            os.write(2, line)
    elif name == "endless":
        chunk = b"e" * 65536
        for _ in range(int(argument) // 65536):
            os.write(2, chunk)
    elif name == "chatter":
        for _ in range(int(argument) // 1000):
            write(b"not a message\n" * 1000)
    elif name == "long":
        for _ in range(int(argument) // 65536):
            sys.stdout.buffer.write(b"x" * 65536)
        write(b"\n")
    elif name == "late":
        last = message["records"][-1]
        say({"action": "checkpoint", "sequenceNumber": last["sequenceNumber"]})
        unread_answers += 1
    elif name == "checkpoints":
        for _ in range(int(argument)):
            say({"action": "checkpoint", "sequenceNumber": None, "subSequenceNumber": None})
        for _ in range(int(argument)):
            report("answered", json.loads(sys.stdin.readline()))
    elif name in ("ask", "waits"):
        while name == "waits" and not os.path.exists(argument):
            time.sleep(0.01)
        sequence = argument if name == "ask" and argument else None
        say({"action": "checkpoint", "sequenceNumber": sequence, "subSequenceNumber": None})
        report("answered", json.loads(sys.stdin.readline()))
    else:
        raise ValueError(fault)
    return True


if folder in ("grandchild", "noisy-grandchild"):
    # Holds the pipes until the test closes the socket, or the pipes are closed.
    shard = plan[0]
    report("grandchild")
    while folder == "noisy-grandchild":
        write(b"not a message\n" * 1000)
    connection.recv(1)
    sys.exit(0)
report("hello")
while True:
    line = sys.stdin.readline()
    if not line:
        break
    message = json.loads(line)
    action = message["action"]
    if action == "initialize":
        shard = message["shardId"]
    report(action, message)
    for _ in range(unread_answers):
        report("answered", json.loads(sys.stdin.readline()))
    unread_answers = 0
    fault = due(action)
    if fault is None or do(fault, message):
        if action == "processRecords" and message["records"]:
            last = message["records"][-1]
            checkpoint(last["sequenceNumber"], last["subSequenceNumber"])
        if action == "shardEnded":
            checkpoint()
        say({"action": "status", "responseFor": action})
    if action == "processRecords":
        fault = due("idle")
        if fault is not None:
            do(fault, message)
