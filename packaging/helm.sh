#!/usr/bin/env bash
# helm.sh ARGUMENT...   runs the helm that the scripts of this folder use.
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "$0")/common.sh"
helm=$(go_tool "$helm_module")
exec "$helm" "$@"
