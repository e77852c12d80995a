#!/bin/sh
# After the first installation and after an update, of the .deb and of the .rpm.
set -e
if ! getent passwd multilangd >/dev/null; then
  if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers multilangd.conf
  else
    useradd --system --user-group --home-dir /var/lib/multilangd --no-create-home --shell /usr/sbin/nologin multilangd
  fi
fi
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  # After an update only. A first installation has no properties file yet: the unit is not enabled and not started.
  systemctl try-restart multilangd.service
fi
