#!/usr/bin/env bash
# image.sh [DIR]   builds the daemon as one static binary without local mode, copies it and the CA certificates of this
# machine to DIR (default target/image), and builds the image multilangd:latest from them with buildah, docker or podman,
# whichever is installed. Pulls no base image. With IMAGE_TOOL= (empty) it builds only the files. IMAGE_BINARY names a
# static binary to take instead, such as dist/bin/x86_64-unknown-linux-musl/multilangd.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${1:-target/image}
mkdir -p "$dir"
binary=${IMAGE_BINARY:-}
if [ -z "$binary" ]; then
  target=$(rustc -vV | sed -n 's/^host: //p')
  RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --no-default-features --bin multilangd --target "$target"
  binary=target/$target/release/multilangd
fi
cp "$binary" "$dir/multilangd"
for bundle in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
  if [ -f "$bundle" ]; then cp "$bundle" "$dir/ca-certificates.crt" && break; fi
done
test -f "$dir/ca-certificates.crt" || { echo "found no CA certificates on this machine (install ca-certificates)" >&2; exit 1; }
if [ "${IMAGE_TOOL-any}" = any ]; then
  for tool in buildah docker podman; do
    if command -v "$tool" >/dev/null; then IMAGE_TOOL=$tool && break; fi
  done
fi
case ${IMAGE_TOOL:-} in
  buildah) buildah build --isolation chroot -t multilangd -f docker/Dockerfile "$dir" ;;
  docker | podman) "$IMAGE_TOOL" build -t multilangd -f docker/Dockerfile "$dir" ;;
  *) echo "the files of the image are in $dir" ;;
esac
ls -l "$dir"
