# Sourced by scripts that start processes: on exit $dir is removed and the pids in the array `started` are stopped.
dir=$(mktemp -d)
started=()
end_all() {
  local pid
  for pid in ${started[@]+"${started[@]}"}; do kill "$pid" 2>/dev/null || true; done
  for pid in ${started[@]+"${started[@]}"}; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$dir"
}
trap end_all EXIT
# free_ports N   prints N different loopback ports that are not in use.
free_ports() {
  python3 -c 'import socket, sys
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*[one.getsockname()[1] for one in held])' "$1"
}
# until_true WHAT COMMAND...   runs the command every 0.2 s until it succeeds; fails after 900 attempts.
until_true() {
  local what=$1 tries=0
  shift
  until "$@" >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -gt 900 ]; then
      echo "timed out waiting until $what" >&2
      tail -n 20 "$dir"/*.log >&2
      exit 1
    fi
    sleep 0.2
  done
  echo "reached: $what"
}
