#!/usr/bin/env bash
# build.sh [TARGET...]   builds the daemon with local mode for each target into dist/bin/TARGET/multilangd and checks
# the result. Without a target: on Linux static binaries for x86_64 and aarch64, on macOS both of Apple's.
# Needs the Rust toolchain of rust-toolchain.toml, and on Linux python3 with venv: zig, the C compiler and linker for
# both architectures, comes from PyPI.
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "$0")/common.sh"

targets=("$@")
if [ ${#targets[@]} = 0 ]; then
  case $(uname -s) in
    Darwin) read -ra targets <<<"$macos_targets" ;;
    *) read -ra targets <<<"$linux_targets" ;;
  esac
fi

# Paths of the machine that builds are replaced, so that two machines build the same bytes.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
export RUSTFLAGS="--remap-path-prefix=$root=multilangd --remap-path-prefix=$cargo_home=cargo"
output=$(cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')

arguments=(--release --locked --bin multilangd)
linux=0
for target in "${targets[@]}"; do
  rustup target list --installed | grep -qx "$target" || rustup target add "$target"
  arguments+=(--target "$target")
  case $target in *-linux-*) linux=1 ;; esac
done
if [ "$linux" = 1 ]; then
  python_tools
  PATH=$work/tools/bin:$PATH CARGO_ZIGBUILD_ZIG_PATH=$work/tools/bin/python-zig nice cargo zigbuild "${arguments[@]}"
else
  nice cargo build "${arguments[@]}"
fi

for target in "${targets[@]}"; do
  mkdir -p "$dist/bin/$target"
  cp "$output/$target/release/multilangd" "$(binary "$target")"
  packaging/check-binary.py "$target" "$(binary "$target")"
done
