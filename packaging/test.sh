#!/usr/bin/env bash
# test.sh [NAME...]   installs the packages in dist/ into throwaway places and runs the daemon from there on local mode:
# 2,000 records reach two record processors, and a signal ends everything with exit code 0. NAME is archive, wheel, npm,
# deb, rpm, image, chart, kernel, arm64, units, network, publish, workflows, recipes or again; without one, all
# of them run.
#
# Needs the packages (packaging/build.sh, packaging/package.sh), python3 with venv, node and npm, curl, and for single
# tests openssl (network), debootstrap and root (deb, rpm), rpm (rpm), buildah and root (image),
# qemu-user-static and root (arm64), systemd (units), and Go for helm, kustomize and actionlint (chart,
# publish, workflows). PyPI and npm deliver amazon_kclpy and
# aws-kcl. A test whose tool is missing fails.
# shellcheck disable=SC2046,SC2086 # lists of targets are words
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=tests/support/started.sh
. tests/support/started.sh
export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local NO_COLOR=1
native=$(native_target)
records=2000
seq 1 $records >"$dir/lines.txt"

need() { command -v "$1" >/dev/null || fail "$1 is missing (Debian package $2)"; }

# job_properties NAME PROCESSOR   prints the properties file of a job.
job_properties() {
  cat <<PROPERTIES
executableName = $2
streamName = orders
applicationName = $1
AWSCredentialsProvider = DefaultCredentialsProvider
regionName = eu-central-1
initialPositionInStream = TRIM_HORIZON
retrievalMode = POLLING
metricsLevel = NONE
PROPERTIES
}

# run_job NAME PROCESSOR COMMAND...   runs a daemon on local mode until it has delivered every record, then stops it.
run_job() {
  local name=$1 processor=$2
  shift 2
  job_properties "$name" "$processor" >"$dir/$name.properties"
  run_files "$name" "$dir/$name.properties" "$dir/lines.txt" "$@"
}

# run_files NAME PROPERTIES LINES COMMAND...   does so with files at the paths that the command sees, and stops it with
# $stop_signal, SIGTERM by default.
run_files() {
  local name=$1 properties=$2 lines=$3 kinesis dynamodb status pid code=0
  shift 3
  read -r kinesis dynamodb status <<<"$(free_ports 3)"
  # The shell ignores SIGINT for what runs in its background, and the daemon would too.
  python3 -c 'import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])' "$@" local "$properties" --shards 2 --put "$lines" --kinesis-port "$kinesis" \
    --dynamodb-port "$dynamodb" --status "127.0.0.1:$status" >"$dir/$name.out" 2>"$dir/$name.log" &
  pid=$!
  started+=("$pid")
  until_true "$name: $records records were delivered, or the daemon has ended" delivered_or_ended "$status" "$pid"
  kill -0 "$pid" 2>/dev/null || { tail -n 30 "$dir/$name.log" >&2; fail "$name: the daemon ended"; }
  # Two distinct children, and not the daemon's own.
  curl -sf "http://127.0.0.1:$status/status" | python3 -c '
import json, sys
shards = json.load(sys.stdin)["shards"]
assert len({shard["childPid"] for shard in shards}) == 2, shards'
  kill "-${stop_signal:-TERM}" "$pid"
  wait "$pid" || code=$?
  [ "$code" = 0 ] || { tail -n 30 "$dir/$name.log" >&2; fail "$name: exit code $code after SIG${stop_signal:-TERM}"; }
  say "$name: exit code 0 after SIG${stop_signal:-TERM}"
}

delivered_or_ended() {
  kill -0 "$2" || return 0
  curl -sf "http://127.0.0.1:$1/status" | python3 -c '
import json, sys
shards = json.load(sys.stdin)["shards"]
sys.exit(sum(shard["delivered"]["records"] for shard in shards) != int(sys.argv[1]))' $records
}

test_archive() {
  local target url path
  (cd "$dist" && sha256 --check --quiet SHA256SUMS)
  mkdir "$dir/archive"
  tar -xzf "$dist/multilangd-$version-$native.tar.gz" -C "$dir/archive" --strip-components=1
  (cd "$dir/archive" && ls multilangd man/multilangd.1 completions/multilangd.bash completions/_multilangd \
    completions/multilangd.fish LICENSE README.md >/dev/null)
  "$dir/archive/multilangd" --version
  bash -n "$dir/archive/completions/multilangd.bash"
  # The URL and the path at which cargo binstall looks for the binary of each target.
  for target in $(built $linux_targets $macos_targets); do
    python3 packaging/package.py binstall "$version" "$target" >"$dir/binstall"
    { read -r url && read -r path; } <"$dir/binstall"
    [ "${url%/*}" = "REPO/releases/download/v$version" ] || fail "cargo binstall: $url is not at the release"
    tar -tzf "$dist/${url##*/}" "$path" >/dev/null || fail "cargo binstall: no $path in ${url##*/}"
  done
  python3 - "$dist/multilangd-$version.cdx.json" <<'PY'
import json, sys
parts = json.load(open(sys.argv[1]))
assert parts["bomFormat"] == "CycloneDX" and len(parts["components"]) > 100
assert any(one["name"] == "dynoxide-rs" for one in parts["components"]), "local mode is missing"
PY
  if [ -f "$dist/multilangd.rb" ]; then
    # The formula names the archives by their checksums.
    grep -o 'sha256 "[0-9a-f]*"' "$dist/multilangd.rb" | cut -d'"' -f2 | while read -r sum; do
      grep -q "^$sum  multilangd-$version-.*tar.gz$" "$dist/SHA256SUMS" || fail "formula: no archive has the sum $sum"
    done
  fi
}

# kclpy   puts amazon_kclpy with its sample into $dir/kclpy once, without the jars that its setup.py would download:
# docker/python.Dockerfile does the same.
kclpy() {
  if [ -e "$dir/kclpy/ready" ]; then return; fi
  python3 -m venv "$dir/pip"
  "$dir/pip/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary amazon_kclpy --dest "$dir/kclpy" \
    amazon_kclpy==3.2.0
  tar -xzf "$dir/kclpy/amazon_kclpy-3.2.0.tar.gz" -C "$dir/kclpy" --strip-components=1
  touch "$dir/kclpy/ready"
}

test_wheel() {
  local venv=$dir/venv tag site
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-index --find-links "$dist" multilangd
  "$venv/bin/multilangd" --version
  kclpy
  site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  cp -r "$dir/kclpy/amazon_kclpy" "$site/"
  # amazon_kclpy's own sample processor.
  run_job wheel "$venv/bin/python $dir/kclpy/samples/sample_kclpy_app.py" "$venv/bin/multilangd"
  # What pip of each platform would choose.
  for target in $(built $linux_targets); do
    for tag in manylinux2014 manylinux_2_17 musllinux_1_1; do
      rm -rf "$dir/chosen"
      "$venv/bin/pip" download --quiet --disable-pip-version-check --no-index --find-links "$dist" --no-deps \
        --only-binary :all: --platform "${tag}_${target%%-*}" --dest "$dir/chosen" multilangd
      ls "$dir/chosen/"*"${tag}_${target%%-*}"*.whl >/dev/null
    done
  done
  "$venv/bin/pip" uninstall --quiet --yes multilangd
  [ ! -e "$venv/bin/multilangd" ] || fail "pip uninstall left the binary"
}

test_npm() {
  local registry pid
  need npm npm
  read -r registry <<<"$(free_ports 1)"
  python3 packaging/npm/registry.py "$registry" "$dist" 2>"$dir/registry.log" &
  started+=($!)
  until_true "npm: the registry answers" curl -sf "http://127.0.0.1:$registry/multilangd"
  # The client, as npm delivers it, without the jars that its install script would download.
  npm install --prefix "$dir/client" --no-audit --no-fund --ignore-scripts --loglevel=error aws-kcl@2.3.2 >/dev/null
  export NODE_PATH=$dir/client/node_modules
  for scripts in true false; do
    local place=$dir/npm-$scripts
    mkdir "$place"
    npm install --prefix "$place" --registry "http://127.0.0.1:$registry/" --cache "$dir/npm-cache" \
      --ignore-scripts=$scripts --no-audit --no-fund --loglevel=error multilangd >/dev/null
    # With scripts the launcher has been replaced by the binary.
    case $scripts:$(head -c 4 "$place/node_modules/multilangd/bin/multilangd" | tr -d '\0') in
      true:\#!/u) ;;
      true:* | false:\#*) fail "npm with --ignore-scripts=$scripts has the wrong file in bin" ;;
    esac
    "$place/node_modules/.bin/multilangd" --version
    run_job "npm-scripts-ignored-$scripts" "node $root/examples/node/aws_kcl_processor.js" \
      "$place/node_modules/.bin/multilangd"
  done
  unset NODE_PATH
  # Exit codes pass through the launcher.
  code=0
  "$dir/npm-true/node_modules/.bin/multilangd" "$dir/missing.properties" 2>/dev/null || code=$?
  [ "$code" = 66 ] || fail "the launcher ended with $code in place of 66"
}

# debian   makes the folder $dir/debian once: the smallest Debian 12 with systemd and python3, without a
# toolchain, and in /app amazon_kclpy with its sample.
debian() {
  if [ -e "$dir/debian/ready" ]; then return; fi
  need debootstrap debootstrap
  debootstrap --variant=minbase --include=python3,systemd bookworm "$dir/debian" >"$dir/debootstrap.log" 2>&1 ||
    { tail "$dir/debootstrap.log"; fail "debootstrap"; }
  kclpy
  cp -r "$dir/kclpy" "$dir/debian/app"
  cp "$dir/lines.txt" "$dir/debian/app/"
  touch "$dir/debian/ready"
}

# check_installed NAME   checks what the .deb or the .rpm has installed, and runs the main job from it as its user.
check_installed() {
  local name=$1 system=$dir/debian unit=/usr/lib/systemd/system/multilangd.service
  chroot "$system" getent passwd multilangd
  [ "$(stat -c %U:%G:%a "$system/etc/multilangd/environment")" = root:root:600 ] || fail "$name: wrong mode of environment"
  chroot "$system" systemd-analyze verify --man=no $unit
  chroot "$system" systemd-analyze security --offline=true --threshold=30 $unit | tail -1
  job_properties "$name" "python3 /app/samples/sample_kclpy_app.py" >"$system/etc/multilangd/my.properties"
  # shellcheck disable=SC2016 # the inner shell expands them
  run_files "$name" /etc/multilangd/my.properties /app/lines.txt unshare --mount sh -ec '
    system=$1; shift
    mount -t proc proc "$system/proc"
    exec chroot --userspec=multilangd:multilangd "$system" env PYTHONPATH=/app "$@"' - "$system" /usr/bin/multilangd
  rm "$system/etc/multilangd/my.properties"
}

test_deb() {
  local system=$dir/debian deb
  deb=$(ls "$dist"/multilangd_"$version"-1_"$(cpu "$native" deb)".deb)
  debian
  cp "$deb" "$system/multilangd.deb"
  for _ in first update; do chroot "$system" dpkg -i /multilangd.deb >"$dir/dpkg.log" 2>&1 || { cat "$dir/dpkg.log"; fail "dpkg -i"; }; done
  chroot "$system" /usr/bin/multilangd --version
  check_installed deb
  chroot "$system" dpkg -r multilangd >/dev/null
  [ ! -e "$system/usr/bin/multilangd" ] || fail "dpkg -r left the binary"
  [ -e "$system/etc/multilangd/environment" ] || fail "dpkg -r removed the configuration"
  chroot "$system" dpkg -P multilangd >/dev/null 2>&1
  [ ! -e "$system/etc/multilangd/environment" ] || fail "dpkg -P left /etc/multilangd/environment"
  chroot "$system" userdel multilangd
}

# No RPM distribution can be installed without its registry: rpm installs the package into the Debian, where its scripts
# run as they do in a distribution.
test_rpm() {
  local system=$dir/debian package=$dist/multilangd-$version-1.${native%%-*}.rpm database=/var/lib/rpm
  need rpm rpm
  debian
  rpm -qp --qf '[%{FILEMODES:perms} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILENAMES}\n]' "$package" >"$dir/rpm.files"
  diff - "$dir/rpm.files" <<FILES || fail "rpm: other files, owners or modes"
drwxr-xr-x root:root /etc/multilangd
-rw------- root:root /etc/multilangd/environment
-rwxr-xr-x root:root /usr/bin/multilangd
-rw-r--r-- root:root /usr/lib/systemd/system/multilangd.service
-rw-r--r-- root:root /usr/lib/sysusers.d/multilangd.conf
-rw-r--r-- root:root /usr/share/bash-completion/completions/multilangd
-rw-r--r-- root:root /usr/share/doc/multilangd/copyright
-rw-r--r-- root:root /usr/share/doc/multilangd/orders.properties
-rw-r--r-- root:root /usr/share/fish/vendor_completions.d/multilangd.fish
-rw-r--r-- root:root /usr/share/man/man1/multilangd.1.gz
-rw-r--r-- root:root /usr/share/zsh/site-functions/_multilangd
FILES
  rpm --root "$system" --dbpath $database --install --nodeps "$package"
  rpm --root "$system" --dbpath $database --verify --nodeps multilangd
  chroot "$system" /usr/bin/multilangd --version
  check_installed rpm
  # What an administrator has changed stays, at an update and after a removal.
  echo "AWS_REGION=eu-central-1" >>"$system/etc/multilangd/environment"
  rpm --root "$system" --dbpath $database --upgrade --force --nodeps "$package"
  grep -q "^AWS_REGION" "$system/etc/multilangd/environment" || fail "rpm: an update replaced the configuration"
  rpm --root "$system" --dbpath $database --erase --nodeps multilangd 2>"$dir/erase.log"
  [ ! -e "$system/usr/bin/multilangd" ] || fail "rpm --erase left the binary"
  grep -q "^AWS_REGION" "$system/etc/multilangd/environment.rpmsave" || fail "rpm --erase removed the configuration"
  chroot "$system" userdel multilangd
}

test_units() {
  local unit=$dir/multilangd.service
  need systemd-analyze systemd
  systemd-analyze security --offline=true --threshold=30 deploy/multilangd.service | tail -1
  # verify looks for the programs: here is one.
  sed "s#/usr/local/bin/multilangd#$(binary "$native")#" deploy/multilangd.service >"$unit"
  systemd-analyze verify --man=no "$unit"
}

# The wheel's binary in a network whose only way out is a proxy, to endpoints with certificates of a private CA.
test_network() {
  local venv=$dir/network kinesis dynamodb status proxy tls_kinesis tls_dynamodb code=0 daemon
  need openssl openssl
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-index --find-links "$dist" multilangd
  openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=private CA" -keyout "$dir/ca.key" -out "$dir/ca.pem" 2>/dev/null
  openssl req -newkey rsa:2048 -nodes -subj "/CN=endpoints" -keyout "$dir/site.key" -out "$dir/site.csr" 2>/dev/null
  openssl x509 -req -in "$dir/site.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial -days 2 -out "$dir/site.pem" \
    -extfile <(echo "subjectAltName = DNS:host.docker.internal") 2>/dev/null
  read -r kinesis dynamodb status <<<"$(free_ports 3)"
  cat >"$dir/endpoints.properties" <<PROPERTIES
executableName = python3 $root/examples/python/processor.py
streamName = orders
applicationName = endpoints
AWSCredentialsProvider = DefaultCredentialsProvider
regionName = eu-central-1
PROPERTIES
  "$venv/bin/multilangd" local "$dir/endpoints.properties" --shards 2 --put "$dir/lines.txt" --kinesis-port "$kinesis" \
    --dynamodb-port "$dynamodb" --status off >"$dir/endpoints.out" 2>"$dir/endpoints.log" &
  started+=($!)
  mkfifo "$dir/ports"
  python3 packaging/private-network.py "$dir/site.pem" "$dir/site.key" "$kinesis" "$dynamodb" >"$dir/ports" 2>"$dir/tunnels.log" &
  started+=($!)
  read -r proxy tls_kinesis tls_dynamodb <"$dir/ports"
  sed "s/= endpoints$/= behind-a-proxy/" "$dir/endpoints.properties" >"$dir/network.properties"
  cat >>"$dir/network.properties" <<PROPERTIES
initialPositionInStream = TRIM_HORIZON
metricsLevel = NONE
kinesisEndpoint = https://host.docker.internal:$tls_kinesis
dynamoDBEndpoint = https://host.docker.internal:$tls_dynamodb
PROPERTIES
  AWS_CA_BUNDLE=$dir/ca.pem HTTPS_PROXY=http://127.0.0.1:$proxy "$venv/bin/multilangd" "$dir/network.properties" \
    --status "127.0.0.1:$status" >"$dir/network.out" 2>"$dir/network.log" &
  daemon=$!
  started+=("$daemon")
  until_true "network: $records records were delivered, or the daemon has ended" delivered_or_ended "$status" "$daemon"
  kill -TERM "$daemon"
  wait "$daemon" || code=$?
  [ "$code" = 0 ] || { tail -n 30 "$dir/network.log" >&2; fail "network: exit code $code after SIGTERM"; }
  for port in "$tls_kinesis" "$tls_dynamodb"; do
    grep -q "tunnel to host.docker.internal:$port" "$dir/tunnels.log" || fail "network: no tunnel to port $port"
  done
}

# image_uses PATTERN   fails unless the daemon of test_image names these CA certificates.
image_uses() {
  buildah "${store[@]}" run --isolation chroot "$container" -- /multilangd check /etc/multilangd/my.properties >"$dir/check.out" ||
    { cat "$dir/check.out" >&2; fail "image: check"; }
  grep "^CA certificates: $1" "$dir/check.out" || { grep "^CA" "$dir/check.out" >&2; fail "image: expected CA certificates: $1"; }
}

test_image() {
  local container store mounted
  need buildah buildah
  store=(--root "$work/test-storage" --runroot "$work/test-storage-run")
  export STORAGE_DRIVER=vfs
  container=$(buildah "${store[@]}" from --quiet "oci:$dist/image:$version")
  buildah "${store[@]}" run --isolation chroot "$container" -- /multilangd --version
  # Only these files are in it.
  mounted=$(buildah "${store[@]}" mount "$container")
  (cd "$mounted" && ls etc/ssl/certs/ca-certificates.crt multilangd >/dev/null)
  # The certificates in use: those of the image; those of the binary in an image that has none, or none that can be used.
  mkdir "$mounted/etc/multilangd"
  job_properties image /multilangd >"$mounted/etc/multilangd/my.properties"
  image_uses "[1-9][0-9]* of this system"
  : >"$mounted/etc/ssl/certs/ca-certificates.crt"
  image_uses "[1-9][0-9]* built in: .*ca-certificates.crt contains no certificate"
  rm "$mounted/etc/ssl/certs/ca-certificates.crt"
  image_uses "[1-9][0-9]* built in: this system has none"
  buildah "${store[@]}" rm "$container" >/dev/null
  rm -rf "$work/test-storage"
}

# check_kustomize PYTHON   the Kustomize base is that of the chart, and an overlay as in docs/install.md builds.
check_kustomize() {
  local kustomize overlay=$dir/overlay
  packaging/kustomize.sh "$dir/workers.yaml"
  diff "$dir/workers.yaml" deploy/kustomize/workers.yaml || fail "chart: run packaging/kustomize.sh"
  kustomize=$(go_tool "$kustomize_module")
  mkdir "$overlay"
  cp -r deploy/kustomize "$overlay/multilangd"
  # shellcheck disable=SC2016 # a fence of Markdown
  sed -n '/^```yaml kustomization$/,/^```$/p' docs/install.md | sed '1d; $d' >"$overlay/kustomization.yaml"
  job_properties of-the-overlay "python /app/processor.py" >"$overlay/my.properties"
  "$kustomize" build "$overlay" >"$dir/overlay.yaml"
  "$1" packaging/check-manifests.py "$dir/overlay.yaml"
  "$1" - "$dir/overlay.yaml" <<'PY'
import sys, yaml
one = {document["kind"]: document for document in yaml.safe_load_all(open(sys.argv[1]))}
pod = one["Deployment"]["spec"]["template"]
labels = one["Deployment"]["spec"]["selector"]["matchLabels"]
assert labels["app.kubernetes.io/instance"] == "orders" and labels.items() <= pod["metadata"]["labels"].items()
assert one["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
assert all(spread["labelSelector"]["matchLabels"] == labels for spread in pod["spec"]["topologySpreadConstraints"])
assert pod["spec"]["containers"][0]["image"] == "registry.example.com/order-reader:1"
assert pod["spec"]["serviceAccountName"] == one["ServiceAccount"]["metadata"]["name"]
name = one["ConfigMap"]["metadata"]["name"]
assert pod["spec"]["volumes"][0]["configMap"]["name"] == name and name.startswith("orders-multilangd-")
assert "of-the-overlay" in one["ConfigMap"]["data"]["my.properties"]
PY
}

test_chart() {
  local helm chart=$dist/multilangd-chart-$version.tgz values=packaging/chart/ci-values.yaml python=$work/manifests/bin/python
  helm=$(go_tool "$helm_module")
  "$helm" lint --strict --values "$values" "$chart"
  "$helm" template orders "$chart" --kube-version 1.31.0 --values "$values" >"$dir/default.yaml"
  "$helm" template orders "$chart" --kube-version 1.31.0 --values "$values" --set podMonitor.enabled=true --set replicas=null \
    --set existingConfigMap=mine --set podDisruptionBudget.enabled=false >"$dir/other.yaml"
  "$helm" template orders "$chart" --kube-version 1.31.0 --values packaging/chart/ci-applications.yaml >"$dir/several.yaml"
  grep -q "args: \[/etc/multilangd\]" "$dir/several.yaml"
  grep -q "args: \[/etc/multilangd/my.properties\]" "$dir/default.yaml"
  grep -q "kind: PodMonitor" "$dir/other.yaml"
  if grep -q "replicas:\|kind: ConfigMap" "$dir/other.yaml"; then fail "chart: replicas or ConfigMap despite the values"; fi
  if "$helm" template orders "$chart" --kube-version 1.31.0 >/dev/null 2>&1; then fail "chart: accepts missing values"; fi
  if [ ! -e "$work/manifests/ready" ]; then
    python3 -m venv --clear "$work/manifests"
    "$work/manifests/bin/pip" install --quiet --disable-pip-version-check kubernetes-validate==1.37.0
    touch "$work/manifests/ready"
  fi
  "$python" packaging/check-manifests.py deploy/kubernetes.yaml "$dir/default.yaml" "$dir/other.yaml" \
    "$dir/several.yaml"
  check_kustomize "$python"
  # The properties file of the chart is one that the daemon accepts.
  "$python" - "$dir/default.yaml" <<'PY' >"$dir/chart.properties"
import sys, yaml
for one in yaml.safe_load_all(open(sys.argv[1])):
    if one and one["kind"] == "ConfigMap":
        print(one["data"]["my.properties"])
PY
  "$(binary "$native")" check "$dir/chart.properties" >"$dir/check.log" 2>&1 || { cat "$dir/check.log"; fail "chart: wrong properties"; }
  grep -q "10000000" "$dir/chart.properties"
  grep -q "workerMetricsEMAAlpha = 0.5$" "$dir/chart.properties"
  mkdir -p "$dir/applications"
  "$python" - "$dir/several.yaml" "$dir/applications" <<'PY'
import pathlib, sys, yaml
for one in yaml.safe_load_all(open(sys.argv[1])):
    if one and one["kind"] == "ConfigMap":
        for name, text in one["data"].items():
            (pathlib.Path(sys.argv[2]) / name).write_text(text)
PY
  "$(binary "$native")" check "$dir/applications" >"$dir/check.log" 2>&1 || { cat "$dir/check.log"; fail "chart: wrong applications"; }
  grep -q "clicks.properties:" "$dir/check.log"
}

# The main job on a kernel without the system calls that Linux 3.5 and later have added.
test_kernel() {
  run_job kernel "python3 $root/examples/python/processor.py" packaging/old-kernel.py "$(binary "$native")"
}

# The other architecture under emulation; its record processors are this machine's. The daemon starts itself for each of
# them, so the kernel has to know the emulator. The binary sees the oldest kernel of docs/install.md.
test_arm64() {
  local -x QEMU_UNAME=4.1.0
  local binary kernel=/proc/sys/fs/binfmt_misc entry=multilangd-test mounted=
  need qemu-aarch64-static qemu-user-static
  binary=$(binary aarch64-unknown-linux-musl)
  [ -f "$binary" ] || fail "$binary is missing (packaging/build.sh builds it)"
  if [ ! -e $kernel/register ]; then mount -t binfmt_misc none $kernel && mounted=yes; fi
  # shellcheck disable=SC2064 # the values of now
  trap "end_all; echo -1 >$kernel/$entry || true; [ -z '$mounted' ] || umount $kernel" EXIT
  if [ ! -e $kernel/$entry ]; then
    printf '%s' ":$entry:M::"'\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00' \
      ':\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:' \
      "$(command -v qemu-aarch64-static):F" >$kernel/register
  fi
  local stop_signal
  for stop_signal in TERM INT; do
    run_job "arm64-$stop_signal" "python3 $root/examples/python/processor.py" "$binary"
  done
  echo -1 >$kernel/$entry
  [ -z "$mounted" ] || umount $kernel
  trap end_all EXIT
}

# What a release would publish, as far as this machine has built it; nothing is published.
test_publish() {
  export IMAGE=registry.invalid/multilangd CHART=registry.invalid/charts
  PUBLISH_TARGETS=$(built $linux_targets $macos_targets)
  export PUBLISH_TARGETS
  unset GITHUB_REF_NAME
  packaging/publish.sh --dry-run github image chart pypi npm >"$dir/publish.log" 2>&1 || { cat "$dir/publish.log" >&2; fail "publish"; }
  # The launcher's package depends on those of the platforms, which therefore precede it.
  grep -o "would run: npm publish .*" "$dir/publish.log" | tail -1 | grep -q "/multilangd-$version.tgz$" || fail "publish: wrong order"
  # Each file in dist is published somewhere, and is one that the scripts know.
  (cd "$dist" && find . -maxdepth 1 -type f | sed 's#^\./##') | while read -r file; do
    grep -q -F "/$file" "$dir/publish.log" || fail "publish: $file is not part of a release"
  done
  # Refused before anything is published: a missing file, a wrong checksum, another tag.
  mv "$dist/multilangd.rb" "$dir/"
  refused "multilangd.rb is missing" chart github
  { cat "$dir/multilangd.rb" && echo; } >"$dist/multilangd.rb"
  refused "multilangd.rb has another checksum" chart github
  mv "$dir/multilangd.rb" "$dist/"
  TAG=v0.0.0 refused "v0.0.0 is not v$version" chart
}

# refused MESSAGE DESTINATION...   fails unless publish.sh ends with this message and begins nothing.
refused() {
  local message=$1 code=0
  shift
  packaging/publish.sh --dry-run "$@" >"$dir/refused.log" 2>&1 || code=$?
  if [ "$code" != 1 ] || ! grep -q "$message" "$dir/refused.log" || grep -q "would run" "$dir/refused.log"; then
    cat "$dir/refused.log" >&2
    fail "publish.sh: exit code $code in place of a refusal (expected: $message)"
  fi
}

# shellcheck source=packaging/test-recipes.sh
. packaging/test-recipes.sh

test_workflows() { "$(go_tool "$actionlint_module")" .github/workflows/*.yml examples/ci/workflow.yml; }

# Two runs with one commit and its binaries make identical files.
test_again() {
  packaging/package.sh wheel npm archive deb chart >/dev/null
  cp "$dist/SHA256SUMS" "$dir/before"
  packaging/package.sh wheel npm archive deb chart >/dev/null
  diff "$dir/before" "$dist/SHA256SUMS" || fail "packages differ from those of the same commit"
}

tests=("$@")
if [ ${#tests[@]} = 0 ]; then tests=(archive wheel npm units network kernel deb rpm image chart arm64 publish workflows recipes again); fi
for name in "${tests[@]}"; do
  printf '\n== %s (%s s)\n' "$name" "$SECONDS"
  "test_$name"
done
printf '\n== done (%s s)\n' "$SECONDS"
