"""A record processor that misbehaves once, where and how it is told. Else it does all that a good one
does: it checkpoints the last record of each batch by its numbers, and the end of its shard.

argv: PORT FOLDER [SHARD@MOMENT=DEED ...]

MOMENT is an action of the protocol, or idle (just after the answer to processRecords). A deed is done by
the first child of its shard that comes there (FOLDER remembers that) and reported before it is done.

  exit:N           end with this code
  signal:N         end by this signal
  answer:NAME      answer with NAME instead of the action
  answer-null      answer with null
  say:BASE64       write these bytes to stdout, then go on
  close-stdout     close stdout and live on until stdin ends
  close-stdin      close stdin, answer, and live on
  deaf             leave stdin unread and live on
  hang             never answer
  stubborn         never answer, ignore SIGTERM, live on when stdin ends
  grandchild       start a process in a session of its own that holds all pipes, and end
  heir             the same, and that process prints noise to stdout without end
  stderr:BYTES     write so many bytes in lines to stderr, then go on
  endless:BYTES    the same in one line without an end
  chatter:LINES    so many lines of noise on stdout, then go on
  long:BYTES       a line of so many bytes on stdout, then go on
  late             checkpoint the last record and don't read the answer, which comes with the next action
  waits:FILE       wait until FILE is there, then go on as with ask
  checkpoints:N    ask for N checkpoints before reading an answer, then go on
  ask              checkpoint without a number here and report the answer, then go on
  ask:NUMBER       the same with this sequence number, which can be a word
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


def live_on():
    while True:
        time.sleep(60)


def due(moment):
    """The deed that is to be done here, if nobody has done it yet."""
    for word in plan:
        place, deed = word.split("=", 1)
        if place == shard + "@" + moment:
            try:
                os.close(os.open(os.path.join(folder, place), os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            report("deed", {"moment": moment, "deed": deed})
            return deed
    return None


owed = 0


def do(deed, message):
    """True if the action's answer is still to be given."""
    global owed
    action = message["action"]
    name, _, argument = deed.partition(":")
    if name == "exit":
        os._exit(int(argument))
    elif name == "signal":
        os.kill(os.getpid(), int(argument))
        live_on()
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
        live_on()
    elif name in ("deaf", "hang"):
        live_on()
    elif name == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        live_on()
    elif name in ("grandchild", "heir"):
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
        owed += 1
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
        raise ValueError(deed)
    return True


if folder in ("grandchild", "heir"):
    # Holds the pipes until the test lets go, or nobody reads them.
    shard = plan[0]
    report("grandchild")
    while folder == "heir":
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
    for _ in range(owed):
        report("answered", json.loads(sys.stdin.readline()))
    owed = 0
    deed = due(action)
    if deed is None or do(deed, message):
        if action == "processRecords" and message["records"]:
            last = message["records"][-1]
            checkpoint(last["sequenceNumber"], last["subSequenceNumber"])
        if action == "shardEnded":
            checkpoint()
        say({"action": "status", "responseFor": action})
    if action == "processRecords":
        deed = due("idle")
        if deed is not None:
            do(deed, message)
