#!/usr/bin/env python3
"""in-image.py ROOT CONFIG ARGUMENT...   runs the entry point of an image as a container would, without a network of its
own: with the image's files at ROOT, its user, folder and environment, which `buildah inspect` has written to CONFIG.

Runs in a mount namespace of its own (unshare --mount) and stays one process, which gets the signals.
"""
import json
import os
import subprocess
import sys

root, config, *arguments = sys.argv[1:]
with open(config) as file:
    config = json.load(file)["OCIv1"]["config"]
for kind, name in ((["-t", "proc", "proc"], "proc"), (["--rbind", "/dev"], "dev")):
    os.makedirs(f"{root}/{name}", exist_ok=True)
    subprocess.run(["mount", *kind, f"{root}/{name}"], check=True)
environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
environment |= dict(one.split("=", 1) for one in config["Env"])
environment |= {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
user, group = map(int, config["User"].split(":"))
os.chroot(root)
os.chdir(config.get("WorkingDir") or "/")
os.setgroups([])
os.setgid(group)
os.setuid(user)
command = config["Entrypoint"] + arguments
os.environ["PATH"] = environment["PATH"]
os.execvpe(command[0], command, environment)
