#!/usr/bin/env bash
# arm64-seeds.sh [ARGUMENT...]   compiles the simulation of fleets for arm64 and runs seeds of it under qemu-user. The
# arguments go to the test binary: by default a_fleet_keeps, with 20 seeds unless SEEDS says otherwise. Needs
# qemu-user-static and what build.sh needs. It compiles every dependency once more, which takes minutes, and a seed takes
# some seconds: CI does not run it.
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "$0")/common.sh"
target=aarch64-unknown-linux-musl
if [ $# = 0 ]; then
  set -- a_fleet_keeps --nocapture
  export SEEDS=${SEEDS:-20}
fi
command -v qemu-aarch64-static >/dev/null || fail "qemu-aarch64-static is missing (Debian package qemu-user-static)"
rustup target list --installed | grep -qx "$target" || rustup target add "$target"
python_tools
export PATH=$work/tools/bin:$PATH CARGO_ZIGBUILD_ZIG_PATH=$work/tools/bin/python-zig
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUNNER=qemu-aarch64-static CARGO_INCREMENTAL=0
nice cargo-zigbuild test --locked --target "$target" --test fleet -- "$@"
say "arm64: done after $SECONDS s"
