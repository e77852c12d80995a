#!/usr/bin/env python3
"""registry.py PORT DIST   serves the npm packages in DIST on loopback, as far as `npm install` asks a registry."""
import base64
import hashlib
import http.server
import json
import pathlib
import sys
import tarfile

port, dist = int(sys.argv[1]), pathlib.Path(sys.argv[2])


def package(path):
    with tarfile.open(path) as tar:
        manifest = json.load(tar.extractfile("package/package.json"))
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    manifest["dist"] = {"tarball": f"http://127.0.0.1:{port}/-/{path.name}", "integrity": f"sha512-{digest}"}
    version = manifest["version"]
    document = {"name": manifest["name"], "dist-tags": {"latest": version}, "versions": {version: manifest}}
    return manifest["name"], json.dumps(document).encode()


packages = dict(package(path) for path in dist.glob("multilangd*.tgz") if "-chart-" not in path.name)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.lstrip("/")
        if name in packages:
            self.answer(packages[name], "application/json")
        elif name.startswith("-/") and (dist / pathlib.Path(name).name).exists():
            self.answer((dist / pathlib.Path(name).name).read_bytes(), "application/octet-stream")
        else:
            self.send_error(404)

    def answer(self, content, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
