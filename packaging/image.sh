#!/usr/bin/env bash
# image.sh   makes an OCI image for each Linux binary in dist/bin and their index, as the layout dist/image. Needs
# buildah. Nothing is pulled, and nothing runs, so that amd64 builds arm64 too. Called by package.sh.
#
#   skopeo copy --all oci:dist/image:VERSION docker://REGISTRY/multilangd:VERSION   pushes it
#   skopeo copy oci:dist/image:VERSION docker-daemon:multilangd:latest              gives it to docker
# shellcheck disable=SC2046,SC2086 # lists of targets are words
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "$0")/common.sh"
command -v buildah >/dev/null || fail "the image needs buildah"

# Containers' storage of its own, which goes with the folder: this machine's images stay as they are.
export STORAGE_DRIVER=vfs
storage=(--root "$work/storage" --runroot "$work/storage-run")
stage=$work/stage
index=multilangd-index
rm -rf "$dist/image" "$work/storage" "$stage"
mkdir -p "$stage"
certificates=
for bundle in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
  if [ -f "$bundle" ]; then certificates=$bundle && break; fi
done
[ -n "$certificates" ] || fail "no certificates on this machine (install ca-certificates)"
cp "$certificates" "$stage/ca-certificates.crt"

buildah "${storage[@]}" manifest create "$index" >/dev/null
for target in $(built $linux_targets); do
  arch=$(cpu "$target" oci)
  install -m 755 "$(binary "$target")" "$stage/multilangd"
  buildah "${storage[@]}" build --quiet --isolation chroot --arch "$arch" --timestamp "$SOURCE_DATE_EPOCH" --identity-label=false \
    --label org.opencontainers.image.version="$version" --label org.opencontainers.image.licenses=Apache-2.0 \
    --label org.opencontainers.image.title=multilangd --label org.opencontainers.image.description="$description" \
    -t "multilangd:$arch" -f docker/Dockerfile "$stage" >/dev/null
  buildah "${storage[@]}" manifest add "$index" "multilangd:$arch" >/dev/null
done
buildah "${storage[@]}" manifest push --quiet --all "$index" "oci:$dist/image:$version" >/dev/null
rm -rf "$stage" "$work/storage"
python3 - "$dist/image" <<'PY'
import json, pathlib, sys
layout = pathlib.Path(sys.argv[1])
read = lambda digest: json.loads((layout / "blobs" / digest.replace(":", "/")).read_text())
index = json.loads((layout / "index.json").read_text())["manifests"][0]
print("image index:", index["digest"])
for entry in read(index["digest"])["manifests"]:
    manifest = read(entry["digest"])
    config = read(manifest["config"]["digest"])
    size = sum(one["size"] for one in manifest["layers"])
    assert config["architecture"] == entry["platform"]["architecture"]
    assert config["config"]["Entrypoint"] == ["/multilangd"] and config["config"]["User"] == "65534:65534"
    print(f"  {entry['platform']['architecture']}: {size / 1e6:.1f} MB, {entry['digest']}")
PY
