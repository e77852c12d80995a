#!/usr/bin/env bash
# sbom.sh [FILE]   writes the software bill of materials of the image's binary, with versions and licences, to FILE
# (default target/image/multilangd.cdx.json) in CycloneDX format. Requires cargo-cyclonedx: cargo install
# cargo-cyclonedx --locked.
set -euo pipefail
cd "$(dirname "$0")/.."
file=${1:-target/image/multilangd.cdx.json}
# Further arguments go to cargo: --features local adds the packages of local mode.
if [ $# -gt 0 ]; then shift; fi
mkdir -p "$(dirname "$file")"
# cargo-cyclonedx writes one file beside each manifest of the workspace; only the one of the daemon is kept.
trap 'rm -f ./sbom.json protocol/sbom.json properties/sbom.json' EXIT
cargo cyclonedx --quiet --no-default-features "$@" --no-build-deps --format json --spec-version 1.5 --override-filename sbom
# Removes the path of this folder.
sed "s#path+file://$PWD#path+file://#g; s#file://$PWD#file://#g" sbom.json >"$file"
echo "$file: $(grep -c '"purl"' "$file") packages"
