#!/usr/bin/env bash
# as-root.sh COMMAND...   runs a command as root with the environment of this user, whose PATH has the toolchains; sudo
# replaces PATH whatever --preserve-env says. For CI.
set -euo pipefail
if [ "$(id -u)" = 0 ]; then exec "$@"; fi
exec sudo --preserve-env env "PATH=$PATH" "HOME=$HOME" "$@"
