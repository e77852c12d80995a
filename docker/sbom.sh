#!/usr/bin/env bash
# sbom.sh [FILE]   writes the software bill of materials of the image's binary, with versions and licences, to FILE
# (default target/image/multilangd.cdx.json) in CycloneDX format. Requires cargo-cyclonedx: cargo install
# cargo-cyclonedx --locked.
set -euo pipefail
cd "$(dirname "$0")/.."
file=${1:-target/image/multilangd.cdx.json}
mkdir -p "$(dirname "$file")"
# cargo-cyclonedx writes one file beside each manifest of the workspace; only the one of the daemon is kept.
trap 'rm -f ./sbom.json protocol/sbom.json properties/sbom.json' EXIT
cargo cyclonedx --quiet --no-default-features --no-build-deps --format json --spec-version 1.5 --override-filename sbom
cp sbom.json "$file"
echo "$file: $(grep -c '"purl"' "$file") packages"
