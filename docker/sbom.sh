#!/usr/bin/env bash
# sbom.sh [FILE]   writes what the binary of the image is made of, with versions and licences, to FILE (default
# target/image/multilangd.cdx.json), as CycloneDX has it. Needs cargo-cyclonedx: cargo install cargo-cyclonedx --locked.
set -euo pipefail
cd "$(dirname "$0")/.."
file=${1:-target/image/multilangd.cdx.json}
mkdir -p "$(dirname "$file")"
# It writes beside each manifest of the workspace; the daemon's is the one that is wanted.
trap 'rm -f ./sbom.json protocol/sbom.json properties/sbom.json' EXIT
cargo cyclonedx --quiet --no-default-features --no-build-deps --format json --spec-version 1.5 --override-filename sbom
cp sbom.json "$file"
echo "$file: $(grep -c '"purl"' "$file") packages"
