#!/usr/bin/env bash
# get-kclpy.sh DIR   puts the package amazon_kclpy 3.2.0 from PyPI, as published, under DIR/amazon_kclpy-3.2.0.
# Its setup.py would download the Java daemon's jars when it is installed; unpacked, it needs none.
set -euo pipefail
dir=$1
mkdir -p "$dir"
[ -d "$dir/amazon_kclpy-3.2.0/amazon_kclpy" ] && exit 0
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check setuptools wheel
"$dir/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: --no-build-isolation \
    --dest "$dir" amazon_kclpy==3.2.0
tar -xzf "$dir"/amazon_kclpy-3.2.0.tar.gz -C "$dir"
test -f "$dir/amazon_kclpy-3.2.0/amazon_kclpy/kcl.py"
