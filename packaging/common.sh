# shellcheck shell=bash disable=SC2034 # the scripts that source it use the variables
# Sourced by the scripts of this folder: names, versions and small functions. The working directory becomes the root.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
root=$PWD
dist=$root/dist
# Tools and throwaway installations; `cargo clean` removes them too.
work=${MULTILANGD_PACKAGING:-${CARGO_TARGET_DIR:-$root/target}/packaging}
version=$(sed -n '/^\[workspace.package\]/,/^\[package\]/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
description=$(sed -n 's/^description = "\(.*\)"$/\1/p' Cargo.toml)
# The time stamp of every packed file is the time of the newest commit: two runs make identical files.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export LC_ALL=C TZ=UTC
umask 022
mkdir -p "$work"

linux_targets="x86_64-unknown-linux-musl aarch64-unknown-linux-musl"
macos_targets="x86_64-apple-darwin aarch64-apple-darwin"

nfpm_module=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.0
helm_module=helm.sh/helm/v3/cmd/helm@v3.22.0
kustomize_module=sigs.k8s.io/kustomize/kustomize/v5@v5.7.1
actionlint_module=github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

say() { printf '%s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# The name of a target's processor as packages write it: x86_64 is amd64 in Debian and x64 in npm.
cpu() {
  case $2:$1 in
    oci:x86_64* | deb:x86_64*) echo amd64 ;;
    oci:aarch64* | deb:aarch64*) echo arm64 ;;
    npm:x86_64*) echo x64 ;;
    npm:aarch64*) echo arm64 ;;
    *:*) echo "${1%%-*}" ;;
  esac
}

binary() { echo "$dist/bin/$1/multilangd"; }

# The targets whose binary is in dist/bin.
built() {
  local target
  for target in "$@"; do
    if [ -f "$(binary "$target")" ]; then echo "$target"; fi
  done
}

# The target whose binary runs on this machine.
native_target() {
  case $(uname -s) in
    Linux) echo "$(uname -m)-unknown-linux-musl" ;;
    Darwin) echo "$(uname -m | sed s/arm64/aarch64/)-apple-darwin" ;;
    *) fail "no target for $(uname -s)" ;;
  esac
}

sha256() {
  if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi
}

# Python with the packages of packaging/requirements.txt: zig and cargo-zigbuild.
python_tools() {
  if [ ! -e "$work/tools/ready" ] || ! cmp -s packaging/requirements.txt "$work/tools/ready"; then
    python3 -m venv --clear "$work/tools"
    "$work/tools/bin/pip" install --quiet --disable-pip-version-check -r packaging/requirements.txt
    cp packaging/requirements.txt "$work/tools/ready"
  fi
}

# go_tool MODULE@VERSION   prints the path of a command that is built from the Go module proxy.
go_tool() {
  local name=${1%@*} go
  name=${name%/v[0-9]}
  name=${name##*/}
  if [ ! -x "$work/go/$name-${1#*@}" ]; then
    go=$(command -v go || echo /usr/local/go/bin/go)
    [ -x "$go" ] || fail "$name needs Go to be built: install Go, or put $name into $work/go/$name-${1#*@}"
    mkdir -p "$work/go"
    GOBIN=$work/go GOFLAGS=-mod=mod GOMODCACHE=$work/go/modules-$name GOPATH=$work/go "$go" install "$1" >&2 || fail "failed to build $1"
    chmod -R u+w "$work/go/modules-$name"
    rm -rf "$work/go/modules-$name"
    mv "$work/go/$name" "$work/go/$name-${1#*@}"
  fi
  echo "$work/go/$name-${1#*@}"
}
