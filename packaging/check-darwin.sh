#!/usr/bin/env bash
# Checks that every target compiles for macOS, without a Mac: packaging/check-darwin.sh [--quick] [TARGET...]
# TARGET is aarch64-apple-darwin (the default) or x86_64-apple-darwin. Nothing is linked and no test runs. With --quick
# the targets that `cargo test` leaves out, and the binary without local mode, are left out.
#
# Requires rustup and python3 with venv. The C code of ring and SQLite is compiled with Zig (PyPI ziglang), which has
# the headers of macOS. On two cores it takes about 5 minutes for each target, and one minute after a change of the
# source; it needs 1.5 GB in the folder darwin of cargo's target folder.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
export CARGO_TARGET_DIR=$target/darwin
tools=$CARGO_TARGET_DIR/tools
mkdir -p "$tools"
quick=
if [ "${1:-}" = --quick ]; then quick=1; shift; fi
if [ "$#" -eq 0 ]; then set -- aarch64-apple-darwin; fi

version=0.17.1
if [ ! -x "$tools/zig-$version/bin/python" ] || [ ! -f "$tools/zig-$version/complete" ]; then
  rm -rf "$tools/zig-$version"
  python3 -m venv "$tools/zig-$version"
  "$tools/zig-$version/bin/pip" install --quiet --disable-pip-version-check "ziglang==$version"
  touch "$tools/zig-$version/complete"
fi
# Zig's cache must not depend on a home folder.
export ZIG_GLOBAL_CACHE_DIR=$tools/zig-cache ZIG_LOCAL_CACHE_DIR=$tools/zig-cache
# cc and rustc would ask Xcode for these.
export SDKROOT=/ MACOSX_DEPLOYMENT_TARGET=11.0

for platform in "$@"; do
  case $platform in
    aarch64-apple-darwin) machine=aarch64-macos ;;
    x86_64-apple-darwin) machine=x86_64-macos ;;
    *) echo "unknown target $platform (expected aarch64-apple-darwin or x86_64-apple-darwin)" >&2; exit 64 ;;
  esac
  # Zig names targets in its own way and rejects some options of Apple's compiler.
  cat >"$tools/cc-$machine" <<EOF
#!/usr/bin/env bash
arguments=()
while [ "\$#" -gt 0 ]; do
  case \$1 in
    -arch | -isysroot | -target) shift ;;
    --target=* | -mmacosx-version-min=*) ;;
    *) arguments+=("\$1") ;;
  esac
  shift
done
exec "$tools/zig-$version/bin/python" -m ziglang cc -target $machine "\${arguments[@]}"
EOF
  cat >"$tools/ar" <<EOF
#!/usr/bin/env bash
exec "$tools/zig-$version/bin/python" -m ziglang ar "\$@"
EOF
  chmod +x "$tools/cc-$machine" "$tools/ar"
  variable=${platform//-/_}
  export "CC_$variable=$tools/cc-$machine" "AR_$variable=$tools/ar"
  rustup target add "$platform" >/dev/null 2>&1 || rustup target add "$platform"
  export RUSTFLAGS="-D warnings"
  cargo check --workspace --tests --bins --target "$platform"
  if [ -n "$quick" ]; then continue; fi
  # Targets that `cargo test` excludes.
  cargo check --test clients --test endurance --test interop --bench daemon --bench pieces --target "$platform"
  cargo check --no-default-features --lib --bins --target "$platform"
done
