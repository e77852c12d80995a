#!/usr/bin/env bash
# debian-tools.sh   installs the Debian packages that package.sh and test.sh need, as root or with sudo. For CI.
set -euo pipefail
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
as_root apt-get update -qq
as_root apt-get install -y -qq --no-install-recommends buildah debootstrap qemu-user-static rpm skopeo curl python3-venv >/dev/null
