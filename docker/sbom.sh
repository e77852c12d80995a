#!/usr/bin/env bash
# sbom.sh [FILE [OPTION...]]   writes the packages that the binary consists of, with versions and licences, to FILE
# (default target/image/multilangd.cdx.json) in CycloneDX format. Options go to cargo: --features local lists the packages
# of local mode too. Needs cargo-cyclonedx: cargo install cargo-cyclonedx --locked.
set -euo pipefail
cd "$(dirname "$0")/.."
file=${1:-target/image/multilangd.cdx.json}
if [ $# -gt 0 ]; then shift; fi
mkdir -p "$(dirname "$file")"
# It writes beside each manifest of the workspace; the daemon's is the one that is wanted.
trap 'rm -f ./sbom.json protocol/sbom.json properties/sbom.json' EXIT
cargo cyclonedx --quiet --no-default-features "$@" --no-build-deps --format json --spec-version 1.5 --override-filename sbom
# Without the folder that it was made in.
sed "s#path+file://$PWD#path+file://#g; s#file://$PWD#file://#g" sbom.json >"$file"
echo "$file: $(grep -c '"purl"' "$file") packages"
