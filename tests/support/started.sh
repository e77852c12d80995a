# Sourced by scripts that start things: $dir is theirs and goes with them, what they add to started ends with them.
dir=$(mktemp -d)
started=()
end_all() {
  local pid
  for pid in ${started[@]+"${started[@]}"}; do kill "$pid" 2>/dev/null || true; done
  for pid in ${started[@]+"${started[@]}"}; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$dir"
}
trap end_all EXIT
# free_ports N   prints N ports of loopback that nothing listens on, all different.
free_ports() {
  python3 -c 'import socket, sys
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*[one.getsockname()[1] for one in held])' "$1"
}
# until_true WHAT COMMAND...: asks every fifth of a second, for three minutes and more.
until_true() {
  local what=$1 tries=0
  shift
  until "$@" >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -gt 900 ]; then
      echo "not reached: $what" >&2
      tail -n 20 "$dir"/*.log >&2
      exit 1
    fi
    sleep 0.2
  done
  echo "seen: $what"
}
