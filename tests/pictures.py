#!/usr/bin/env python3
"""pictures.py DIR          renders the status page with 8, 200 and 1,000 shards, as on a desktop and on a phone, light and
                         dark, into DIR, and checks what the page shows. Needs chromium.
pictures.py --like URL   checks that the states which are rendered have the form of that of a running daemon.

The page is src/status/page.html; its data are made up here. docs/pictures has the pictures of docs/operations.md."""
import http.server
import json
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request

PAGE = pathlib.Path(__file__).parent.parent / "src/status/page.html"
HANGS = 'record processor has not answered processRecords for %d s; its last line on stderr: "psycopg2.OperationalError: timeout expired"'
FAILS = 'record processor has been failing for %d s; last error: exit code 1, "KeyError: \'customer_id\'"'


def shard_id(number):
    return f"shardId-{number:012}"


def held(number, rng, state="idle"):
    """A shard of the worker that is asked."""
    busy = state in ("working", "old")
    rate = rng.uniform(80, 240) if busy else 0.0
    seconds = {"stuck": rng.randrange(300, 420), "parked": 4_000, "restarting": 12, "old": 900, "working": 1}.get(state, 0)
    last = {"stuck": HANGS % seconds, "parked": FAILS % seconds}.get(state)
    failures = {"parked": 9, "restarting": 2}.get(state, 0)
    error = 'record processor failed: exit code 1, last line on stderr: "KeyError: \'customer_id\'"' if failures else None
    delivered = rng.randrange(100_000, 900_000)
    return {
        "shard": shard_id(number), "state": "working" if state == "old" else state, "reason": last, "parkedByOperator": None,
        "held": True, "sinceSeconds": 5_000, "childPid": None if state in ("parked", "restarting") else 2_000 + number,
        "openAction": "processRecords" if busy or state == "stuck" else None,
        "openActionSeconds": seconds if state == "stuck" else 0 if busy else None,
        "secondsSinceProgress": seconds if last else rng.randrange(0, 3), "millisBehindLatest": 0,
        "uncheckpointedMillis": seconds * 1000 + rng.randrange(900),
        "recordsWaiting": rng.randrange(4_000, 9_000) if state == "stuck" else rng.randrange(90) if busy else 0,
        "delivered": {"records": delivered, "bytes": delivered * 900, "batches": delivered // 90, "position": "4967", "ageSeconds": 3,
                      "recordsPerSecond": round(rate, 1), "bytesPerSecond": round(rate * 900)},
        "checkpoint": {"stored": delivered // 90, "failed": 0, "position": "4967", "ageSeconds": 4},
        "child": {"starts": 1 + failures, "failures": failures, "answers": delivered // 90, "busySeconds": 912.5,
                  "lastFailure": "exit code 1" if failures else None, "lastStderr": ["KeyError: 'customer_id'"] if failures else None},
        "deadLetters": {"written": 0, "failed": 0, "bisectedRecords": None, "last": None},
        "reads": {"ok": 9_000, "failed": 0, "failingSeconds": None, "lastError": None, "lastErrorSecondsAgo": None},
        "lastError": {"error": error, "secondsAgo": 12} if error else None,
        "droppedRecords": 0, "oldRecords": 0,
    }


def lease(number, owner, rng, live):
    return {"shard": shard_id(number), "owner": owner, "nextOwner": None, "state": "owned" if live else "expired",
            "checkpointUnchangedSeconds": rng.randrange(0, 40) if live else 95, "unreadSeconds": None if live else 60, "throughputKBps": round(rng.uniform(20, 200), 1)}


def status(count, workers, dead, states):
    """The state of the first of some workers, the last `dead` of which are dead; `states` are those of its first shards."""
    rng = random.Random(count)
    names = [f"order-reader-{number}" for number in range(workers)]
    owner = lambda number: names[number * workers // count]
    own = [number for number in range(count) if owner(number) == names[0]]
    exceptions = iter(rng.sample(own, len(states)))
    state_of = {next(exceptions): state for state in states}
    shards = [held(number, rng, state_of.get(number) or ("working" if rng.random() < 0.4 else "idle")) for number in own]
    is_live = lambda name: names.index(name) < workers - dead
    metrics = lambda name: {"C": round(rng.uniform(20, 60), 1)} if is_live(name) else {}
    calls = [{"service": "DynamoDB", "operation": "UpdateItem", "ok": 41_000, "failed": 2, "seconds": 140.2}]
    return {
        "worker": names[0], "application": "order-reader", "stream": "orders", "table": "order-reader", "version": "0.1.0",
        "uptimeSeconds": 5_400, "ready": True, "stopping": False, "leader": True, "leasesInTable": count, "shardsUnread": None,
        "workersAlive": workers - dead, "lookedSecondsAgo": 3, "leasesTaken": len(own), "leasesLeft": {}, "bufferBytes": 48_000_000,
        "calls": calls, "shards": shards,
        "fleet": {"scannedSecondsAgo": 3,
                  "workers": [{"worker": name, "leases": sum(owner(number) == name for number in range(count)), "live": is_live(name),
                               "acceptsLeases": True if is_live(name) else None, "metrics": metrics(name)} for name in names],
                  "leases": [lease(number, owner(number), rng, is_live(owner(number))) for number in range(count)]},
    }


# By number of shards: the state, and what the headline must say.
SCENES = {
    8: (status(8, 2, 0, ["stuck", "restarting"]), "1 shard is stuck"),
    200: (status(200, 5, 1, ["stuck"] * 2 + ["parked"] + ["restarting"] * 3 + ["old"] * 4),
          "2 shards are stuck, 1 shard is parked, no live worker reads 40 shards"),
    1000: (status(1000, 4, 0, ["stuck"] * 40 + ["restarting"] * 2 + ["old"] * 9), "40 shards are stuck"),
}
# Width and height in CSS pixels, device pixels in each.
SCREENS = {"desktop": (1180, 860, 1), "phone": (390, 844, 2)}


# Chooses the first state, and then those shards whose error has a word.
FILTER = """<script>setTimeout(() => {
  document.querySelector(".states button").click();
  const input = document.querySelector("input");
  input.value = "operationalerror";
  input.dispatchEvent(new Event("input"));
}, 500);</script>"""


class Server(http.server.BaseHTTPRequestHandler):
    """The page in a frame of a screen's width: a window of a browser cannot be as narrow as a phone."""

    def do_GET(self):
        scene, _, path = self.path.lstrip("/").partition("/")
        if path.startswith("status"):
            kind, body = "application/json", json.dumps(SCENES[int(scene)][0])
        elif path.startswith("frame-"):
            width, height = path.removeprefix("frame-").split("x")
            kind = "text/html"
            body = f'<body style="margin:0"><iframe src="page" style="border:0;width:{width}px;height:{height}px"></iframe>'
        else:
            kind, body = "text/html; charset=utf-8", PAGE.read_text().replace('fetch("/status', 'fetch("status')
            if path == "filtered":
                body = body.replace("</body>", FILTER + "</body>")
        self.send_response(200)
        self.send_header("content-type", kind)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


def chromium(*arguments):
    program = shutil.which("chromium") or sys.exit("chromium is not installed")
    with tempfile.TemporaryDirectory() as profile:
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-lcd-text",
                   "--run-all-compositor-stages-before-draw", f"--user-data-dir={profile}",
                   "--virtual-time-budget=1500", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def check(count, url):
    """The page of a scene has a cell for each shard, and its headline names what is wrong."""
    page = chromium("--dump-dom", f"{url}/page")
    headline = re.search(r'<div class="say[^"]*"><b>([^<]*)</b>', page)
    cells = re.search(r'<div class="strip"[^>]*>(.*?)</div>', page, re.S)
    shown = (cells and cells[1].count("<i "), headline and headline[1])
    wanted = (count, SCENES[count][1])
    if shown != wanted:
        sys.exit(f"{count} shards: the page shows {shown}, not {wanted}")
    page = chromium("--dump-dom", f"{url}/filtered")
    stuck = int(re.search(r"\d+", wanted[1])[0])
    found = re.search(r'<span class="soft found">([^<]*)</span>', page)[1]
    rows = len(re.findall(r'<td class="state bad">stuck</td>', page)), len(re.findall(r'<td class="state', page))
    if (found, rows) != (f"{stuck} of {count} shards", (stuck, stuck)):
        sys.exit(f"{count} shards: the filter leaves {found!r} with rows {rows}, not {stuck}")


def render(folder):
    folder.mkdir(parents=True, exist_ok=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for count in SCENES:
        url = f"http://127.0.0.1:{server.server_port}/{count}"
        check(count, url)
        for screen, (width, height, pixels) in SCREENS.items():
            for mode in ["light", "dark"]:
                picture = folder / f"{screen}-{count}-{mode}.png"
                # 0 is dark.
                chromium(f"--window-size={width},{height}", f"--force-device-scale-factor={pixels}",
                         f"--blink-settings=preferredColorScheme={int(mode == 'light')}",
                         f"--screenshot={picture}", f"{url}/frame-{width}x{height}")
                # A quarter of the size, where it is installed.
                if shutil.which("pngquant"):
                    subprocess.run(["pngquant", "--force", "--ext", ".png", "--speed", "1", "64", str(picture)], check=True)
                print(picture, picture.stat().st_size)


# Objects whose keys are data.
MAPS = {"leasesLeft", "metrics"}


def differences(made, real, path=""):
    """Fields that only one of two values has, and fields of different types. Null has any type."""
    if made is None or real is None:
        return []
    is_number = lambda value: isinstance(value, (int, float)) and not isinstance(value, bool)
    if type(made) is not type(real) and not (is_number(made) and is_number(real)):
        return [f"{path}: {made!r}, {real!r}"]
    if isinstance(made, dict) and path.rsplit(".")[-1] not in MAPS:
        only = [f"{path}.{key}" for key in made.keys() ^ real.keys()]
        return only + [line for key in made.keys() & real.keys() for line in differences(made[key], real[key], f"{path}.{key}")]
    if isinstance(made, list) and made and real:
        return differences(made[0], real[0], path + "[]")
    return []


if __name__ == "__main__":
    if sys.argv[1] == "--like":
        real = json.load(urllib.request.urlopen(sys.argv[2]))
        found = [line for made, _ in SCENES.values() for line in differences(made, real)]
        if found:
            sys.exit("the made-up states are not like " + sys.argv[2] + ":\n" + "\n".join(sorted(set(found))))
        print("the made-up states are like", sys.argv[2])
    else:
        render(pathlib.Path(sys.argv[1]))
