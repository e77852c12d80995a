#!/usr/bin/env bash
# debian-tools.sh   installs the Debian packages that package.sh and test.sh need, as root or with sudo. For CI.
set -euo pipefail
"$(dirname "$0")/as-root.sh" apt-get update -qq
"$(dirname "$0")/as-root.sh" apt-get install -y -qq --no-install-recommends buildah debootstrap debian-archive-keyring \
  qemu-user-static rpm skopeo curl python3-venv >/dev/null
