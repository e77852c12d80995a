#!/bin/sh
# Before a removal ("remove" in Debian, 0 in RPM) and before an update, which needs nothing.
set -e
case ${1:-} in
  remove | 0) if [ -d /run/systemd/system ]; then systemctl disable --now multilangd.service; fi ;;
esac
