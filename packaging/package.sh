#!/usr/bin/env bash
# package.sh [--binary TARGET=PATH]... [KIND...]   makes packages of the binaries in dist/bin and puts them into dist/.
# KIND is archive, wheel, npm, deb, rpm, brew, image or chart; without one, all of them are made.
#
#   archive  tar.gz with the binary, manual page, completions and licence; SHA256SUMS; an SBOM in CycloneDX format
#   wheel    for pip, uv and pipx: manylinux and musllinux, macOS
#   npm      the package multilangd and one package for each platform
#   deb rpm  binary, systemd unit, user, manual page, completions
#   brew     a Homebrew formula from the checksums of the archives
#   image    OCI images for amd64 and arm64 and their index, from scratch, in dist/image
#   chart    the Helm chart as .tgz
#
# Two runs with one commit and its binaries make identical files. --binary copies a binary that was built elsewhere to dist/bin.
# REPOSITORY_URL is written into the metadata, RELEASE_URL into the formula (the folder that has the archives).
# shellcheck disable=SC2046,SC2086 # lists of targets are words
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "$0")/common.sh"

kinds=()
while [ $# -gt 0 ]; do
  case $1 in
    --binary)
      target=${2%%=*}
      packaging/check-binary.py "$target" "${2#*=}"
      mkdir -p "$dist/bin/$target"
      cp "${2#*=}" "$(binary "$target")"
      shift
      ;;
    archive | wheel | npm | deb | rpm | brew | image | chart) kinds+=("$1") ;;
    *) fail "unknown kind of package $1 (one of: archive wheel npm deb rpm brew image chart)" ;;
  esac
  shift
done
if [ ${#kinds[@]} = 0 ]; then kinds=(archive wheel npm deb rpm brew image chart); fi

targets=$(built $linux_targets $macos_targets)
[ -n "$targets" ] || fail "no binary in dist/bin (run packaging/build.sh first)"

# What the binary says about itself: manual page and completions.
texts() {
  local native
  native=$(binary "$(native_target)")
  [ -x "$native" ] || fail "$native is missing: manual page and completions come from a binary that runs here"
  mkdir -p "$dist/texts"
  "$native" manual >"$dist/texts/multilangd.1"
  for shell in bash zsh fish; do "$native" completions $shell >"$dist/texts/multilangd.$shell"; done
}

sbom() {
  export PATH=$work/cargo/bin:$PATH
  cargo cyclonedx --version >/dev/null 2>&1 ||
    cargo install cargo-cyclonedx --version 0.5.9 --locked --quiet --root "$work/cargo" --target-dir "$work/cargo/target"
  docker/sbom.sh "$dist/multilangd-$version.cdx.json" --features local
}

sums() {
  (cd "$dist" && files=$(find . -maxdepth 1 -type f ! -name SHA256SUMS | sed 's#^\./##' | sort) &&
    sha256 $files >SHA256SUMS)
}

# linux_package FORMAT   makes a .deb or .rpm for each architecture with nfpm.
linux_package() {
  local nfpm target
  nfpm=$(go_tool "$nfpm_module")
  sed 's#/usr/local/bin/#/usr/bin/#; s#copy to /etc/systemd/system/multilangd.service, then ##' deploy/multilangd.service >"$dist/texts/multilangd.service"
  gzip -9nc "$dist/texts/multilangd.1" >"$dist/texts/multilangd.1.gz"
  for target in $(built $linux_targets); do
    NAME=multilangd VERSION=$version ARCH=$(cpu "$target" deb) BINARY=$(binary "$target") \
      HOMEPAGE=${REPOSITORY_URL:-} TEXTS=$dist/texts \
      "$nfpm" package --config packaging/linux/nfpm.yaml --packager "$1" --target "$dist/"
  done
}

for kind in "${kinds[@]}"; do
  case $kind in
    archive | deb | rpm) texts ;;
  esac
  case $kind in
    archive)
      python3 packaging/package.py archive "$version" "$dist" $targets
      sbom
      ;;
    wheel | npm | brew | chart) python3 packaging/package.py "$kind" "$version" "$dist" $targets ;;
    deb | rpm) linux_package "$kind" ;;
    image) packaging/image.sh ;;
  esac
  sums
done
