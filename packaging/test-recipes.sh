# shellcheck shell=bash disable=SC2154 # test.sh, which sources it, sets the variables
# The recipes in docker/: buildah builds each of them, and the daemon of the image runs the main job.
#
# The base images cannot be pulled from where no registry is reached. One stand-in has the names of all of them: the
# Debian of the tests of packages with Python, Ruby, Node and Go. Two commands are stand-ins too: `dotnet`, for there is
# no .NET, writes and runs a Python program in place of Processor.dll; `cargo` delivers the binary from dist.

# The arguments for a store of images of its own.
store=(--root "$work/recipes-storage" --runroot "$work/recipes-storage-run" --storage-driver overlay)

end_recipes() {
  if [ -e "$work/recipes-storage" ]; then
    buildah "${store[@]}" rm --all >/dev/null 2>&1 || true
    # The store is a mount of itself.
    umount "$work/recipes-storage/overlay" 2>/dev/null || true
    rm -rf "$work/recipes-storage" "$work/recipes-storage-run"
  fi
}

# stand_in   makes the image that has the names of all base images.
stand_in() {
  local system=$dir/debian container mounted name npm
  debian
  cp /etc/resolv.conf "$system/etc/resolv.conf"
  chroot "$system" sh -ec 'export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -qq --no-install-recommends python3-pip ruby ruby-bundler
    rm -rf /var/lib/apt/lists /var/cache/apt /usr/share/doc /usr/share/locale' >"$dir/apt.log" 2>&1 ||
    { tail "$dir/apt.log" >&2; fail "recipes: apt-get"; }
  # pip and npm verify the registries by the certificates of this machine.
  mkdir -p "$system/etc/ssl/certs"
  cp -L /etc/ssl/certs/ca-certificates.crt "$system/etc/ssl/certs/"
  if [ -f /etc/pip.conf ]; then cp /etc/pip.conf "$system/etc/"; fi
  mkdir -p "$system/usr/etc"
  echo cafile=/etc/ssl/certs/ca-certificates.crt >"$system/usr/etc/npmrc"
  # Links as in the official images, where pip may install into the system.
  ln -sf python3 "$system/usr/bin/python"
  rm -f "$system"/usr/lib/python3*/EXTERNALLY-MANAGED
  npm=$(dirname "$(dirname "$(readlink -f "$(command -v npm)")")")
  mkdir -p "$system/usr/lib/node_modules"
  cp "$(readlink -f "$(command -v node)")" "$system/usr/bin/node"
  cp -r "$npm" "$system/usr/lib/node_modules/npm"
  ln -sf ../lib/node_modules/npm/bin/npm-cli.js "$system/usr/bin/npm"
  ln -sf ../local/go/bin/go "$system/usr/bin/go"
  cat >"$system/usr/bin/dotnet" <<'SH'
#!/bin/sh
if [ "$1" = publish ]; then
  while [ "$1" != --output ]; do shift; done
  mkdir -p "$2" && cp processor.py "$2/Processor.dll"
else
  exec python3 "$@"
fi
SH
  cat >"$system/usr/bin/cargo" <<'SH'
#!/bin/sh
mkdir -p target/release && cp /opt/binaries/multilangd target/release/
SH
  chmod +x "$system/usr/bin/dotnet" "$system/usr/bin/cargo"
  container=$(buildah "${store[@]}" from scratch)
  mounted=$(buildah "${store[@]}" mount "$container")
  cp -a "$system/." "$mounted/"
  buildah "${store[@]}" commit --quiet --rm "$container" stand-in >/dev/null
  sed -n 's/^FROM \(--platform=[^ ]* \)\?\([^ ]*:[^ ]*\).*/\2/p' docker/*.Dockerfile | sort -u | while read -r name; do
    case $name in */*) ;; *) name=docker.io/library/$name ;; esac
    buildah "${store[@]}" tag stand-in "$name"
  done
}

# recipe LANGUAGE CONTEXT   builds docker/LANGUAGE.Dockerfile, with Go and the binary of dist as volumes.
recipe() {
  local go ignored=docker/$1.Dockerfile.dockerignore
  if [ ! -f "$ignored" ]; then ignored=/dev/null; fi
  go=$(command -v go || echo /usr/local/go/bin/go)
  buildah "${store[@]}" build --quiet --isolation chroot --pull-never -t "recipe-$1" -f "docker/$1.Dockerfile" \
    --ignorefile "$ignored" \
    --volume "$("$go" env GOROOT):/usr/local/go:ro" --volume "$(dirname "$(binary "$native")"):/opt/binaries:ro" "$2" \
    >"$dir/recipe-$1.log" 2>&1 || { tail -n 20 "$dir/recipe-$1.log" >&2; fail "recipes: docker/$1.Dockerfile"; }
}

# start_image NAME   makes a container of the image recipe-NAME and sets `image`, the command that runs its entry point.
start_image() {
  local name=$1 container mounted
  container=$(buildah "${store[@]}" from --pull-never --quiet "localhost/recipe-$name")
  buildah "${store[@]}" inspect "$container" >"$dir/$name.json"
  mounted=$(buildah "${store[@]}" mount "$container")
  if find "$mounted" -name "*.jar" | grep .; then fail "recipes: docker/$name.Dockerfile leaves jars in the image"; fi
  cp "$dir/lines.txt" "$mounted/lines.txt"
  image=(unshare --mount python3 packaging/in-image.py "$mounted" "$dir/$name.json")
}

# The two services of the compose file: one fleet, with ports that are free.
run_compose() {
  local kinesis dynamodb first second service pid
  read -r kinesis dynamodb first second <<<"$(free_ports 4)"
  for service in first second; do
    chroot "$dir/debian" ruby -ryaml -e '
      file = YAML.load(STDIN.read, aliases: true)
      service = file["services"][ARGV[0]]
      service["build"] == {"context" => "..", "dockerfile" => "docker/local.Dockerfile"} or abort "another image"
      puts service["command"]' "$service" <examples/docker-compose.yaml |
      sed "s/:4567$/:$kinesis/; s/:4568$/:$dynamodb/" >"$dir/$service.command"
  done
  start_image local
  readarray -t command <"$dir/first.command"
  "${image[@]}" "${command[@]}" --kinesis-port "$kinesis" --dynamodb-port "$dynamodb" --status "127.0.0.1:$first" \
    >"$dir/first.log" 2>&1 &
  started+=($!)
  until_true "compose: the first worker is ready" curl -sf "http://127.0.0.1:$first/readyz"
  readarray -t command <"$dir/second.command"
  "${image[@]}" "${command[@]}" --status "127.0.0.1:$second" >"$dir/second.log" 2>&1 &
  started+=($!)
  until_true "compose: both workers read shards, together all eight" share_shards "$first" "$second"
  for pid in "${started[@]: -2}"; do kill -TERM "$pid"; done
  for pid in "${started[@]: -2}"; do wait "$pid" || fail "compose: a worker ended with $?"; done
}

share_shards() {
  # A shard that was handed off stays on the page, without a record processor.
  python3 -c '
import json, sys, urllib.request
counts = []
for port in sys.argv[1:]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/status") as page:
        counts.append(sum(shard["childPid"] is not None for shard in json.load(page)["shards"]))
sys.exit(sum(counts) != 8 or 0 in counts)' "$@"
}

test_recipes() {
  local image language command app=$dir/app
  need buildah buildah
  trap 'end_all; end_recipes' EXIT
  stand_in
  # The daemon as `docker/image.sh` names it.
  install -D -m 755 "$(binary "$native")" "$app/multilangd"
  cp /etc/ssl/certs/ca-certificates.crt "$app/"
  buildah "${store[@]}" build --quiet --isolation chroot -t multilangd -f docker/Dockerfile "$app" >/dev/null
  for language in ${RECIPES:-python node ruby go dotnet}; do
    rm -rf "$app"
    mkdir -p "$app/app"
    case $language in
      # amazon_kclpy's own sample; the recipe puts the library beside it.
      python) command="python /app/processor.py" && : >"$app/app/requirements.txt" && kclpy &&
        cp "$dir/kclpy/samples/sample_kclpy_app.py" "$app/app/processor.py" ;;
      # With aws-kcl from npm.
      node) command="node /app/processor.js" && cp examples/node/aws_kcl_processor.js "$app/app/processor.js" &&
        (cd "$app/app" && npm init --yes >/dev/null && npm install --no-audit --no-fund --package-lock-only --ignore-scripts \
          --loglevel=error aws-kcl@2.3.2 >/dev/null) ;;
      # No registry of gems is reached: the processor needs none.
      ruby) command="ruby /app/processor.rb" && cp examples/ruby/processor.rb "$app/app/" &&
        printf 'source "https://rubygems.org"\n' >"$app/app/Gemfile" &&
        printf 'GEM\n  remote: https://rubygems.org/\n  specs:\n\nPLATFORMS\n  ruby\n\nDEPENDENCIES\n\nBUNDLED WITH\n   2.3.15\n' >"$app/app/Gemfile.lock" ;;
      go) command=/processor && cp examples/go/plain/main.go "$app/app/" && printf 'module processor\n\ngo 1.19\n' >"$app/app/go.mod" ;;
      dotnet) command="dotnet /app/Processor.dll" && cp examples/python/processor.py "$app/app/" ;;
    esac
    job_properties "recipe-$language" "$command" >"$app/app/my.properties"
    recipe "$language" "$app"
    start_image "$language"
    run_files "recipe-$language" "$(python3 -c 'import json, sys
print(json.load(open(sys.argv[1]))["OCIv1"]["config"]["Cmd"][0])' "$dir/$language.json")" /lines.txt "${image[@]}"
  done
  recipe local .
  run_compose
  end_recipes
  trap end_all EXIT
}
