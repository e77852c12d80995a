#!/usr/bin/env bash
# publish.sh [--dry-run] DESTINATION...   publishes the packages in dist/. For the release workflow.
#
#   github   a release of the tag vVERSION with all files, and CHANGELOG.md's part on VERSION (gh, GH_TOKEN)
#   image    the index of images to IMAGE, for example ghcr.io/OWNER/multilangd (skopeo, logged in)
#   chart    the Helm chart to oci://CHART, for example ghcr.io/OWNER/charts (helm, logged in)
#   pypi     the wheels (twine; trusted publishing, or TWINE_USERNAME and TWINE_PASSWORD)
#   npm      the npm packages, those of the platforms first (npm; trusted publishing, or NODE_AUTH_TOKEN)
#
# Everything is checked before anything is published: each file of each target is there, its checksum is that of
# SHA256SUMS, the tag has the version of Cargo.toml, and CHANGELOG.md has a date for it. A second run continues after a
# first one that failed: what a registry has already is left as it is.
#
# --dry-run checks, prints the commands, and runs none of them but those that change nothing (twine check, npm publish
# --dry-run). PUBLISH_TARGETS names the targets if not all of them are to be published. TAG is the tag that is released;
# in GitHub's workflows GITHUB_REF_NAME is.
# shellcheck disable=SC2046,SC2086 # lists of targets are words
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "$0")/common.sh"

dry=
destinations=()
for word in "$@"; do
  case $word in
    --dry-run) dry=yes ;;
    github | image | chart | pypi | npm) destinations+=("$word") ;;
    *) fail "unknown destination $word (one of: github image chart pypi npm)" ;;
  esac
done
[ ${#destinations[@]} -gt 0 ] || fail "no destination (one or more of: github image chart pypi npm)"

targets=${PUBLISH_TARGETS:-$linux_targets $macos_targets}
tag=${TAG:-${GITHUB_REF_NAME:-v$version}}

# run COMMAND...   runs it, or prints it in a dry run.
run() {
  if [ -n "$dry" ]; then printf 'would run: %s\n' "$*"; else "$@"; fi
}

# The files of a destination, in the order in which they are published.
files() {
  case $1 in
    github)
      python3 packaging/package.py names archive "$version" $targets
      python3 packaging/package.py names wheel "$version" $targets
      python3 packaging/package.py names npm "$version" $targets
      for target in $targets; do
        case $target in
          *-linux-*)
            echo "multilangd_$version-1_$(cpu "$target" deb).deb"
            echo "multilangd-$version-1.${target%%-*}.rpm"
            ;;
        esac
      done
      echo "multilangd.rb"
      echo "multilangd-$version.cdx.json"
      python3 packaging/package.py names chart "$version"
      ;;
    image) echo "image/index.json" ;;
    chart) python3 packaging/package.py names chart "$version" ;;
    pypi) python3 packaging/package.py names wheel "$version" $targets ;;
    npm) python3 packaging/package.py names npm "$version" $targets ;;
  esac
}

# The part of CHANGELOG.md on this version, without its heading.
notes() { awk -v heading="## [$version]" 'index($0, "## [") == 1 { on = index($0, heading) == 1; next } on' CHANGELOG.md; }

check() {
  local faults=() destination file
  [ "$tag" = "v$version" ] || faults+=("the tag $tag is not v$version, the version in Cargo.toml")
  [ -n "$(notes)" ] || faults+=("CHANGELOG.md has no part on $version")
  if [ -z "$dry" ] && ! grep -q "^## \[$version\] - [0-9]" CHANGELOG.md; then
    faults+=("CHANGELOG.md has no date for $version")
  fi
  for destination in "${destinations[@]}"; do
    for file in $(files "$destination"); do
      if [ ! -f "$dist/$file" ]; then
        faults+=("$destination: dist/$file is missing (packaging/build.sh, then packaging/package.sh)")
      elif [ "$destination" != image ] && ! grep -qxF "$(cd "$dist" && sha256 "$file")" "$dist/SHA256SUMS"; then
        faults+=("$destination: dist/$file has another checksum than dist/SHA256SUMS names")
      fi
    done
    case $destination in
      image) [ -n "${IMAGE:-}" ] || faults+=("image: IMAGE is not set (for example ghcr.io/OWNER/multilangd)") ;;
      chart) [ -n "${CHART:-}" ] || faults+=("chart: CHART is not set (for example ghcr.io/OWNER/charts)") ;;
    esac
  done
  if [ ${#faults[@]} -gt 0 ]; then
    printf 'error: %s\n' "${faults[@]}" >&2
    exit 1
  fi
}

publish_github() {
  local assets=() file
  for file in $(files github) SHA256SUMS; do assets+=("$dist/$file"); done
  # Another user may have written the file: the workflow tests as root.
  rm -f "$work/notes.md"
  notes >"$work/notes.md"
  if [ -z "$dry" ] && gh release view "$tag" >/dev/null 2>&1; then
    run gh release upload "$tag" --clobber "${assets[@]}"
  else
    run gh release create "$tag" --verify-tag --title "multilangd $version" --notes-file "$work/notes.md" "${assets[@]}"
  fi
}

publish_image() {
  run skopeo copy --all "oci:$dist/image:$version" "docker://$IMAGE:$version"
  run skopeo copy --all "oci:$dist/image:$version" "docker://$IMAGE:latest"
}

publish_chart() { run "$(go_tool "$helm_module")" push "$dist/$(files chart)" "oci://$CHART"; }

publish_pypi() {
  local wheels=() file
  for file in $(files pypi); do wheels+=("$dist/$file"); done
  if [ ! -e "$work/twine/ready" ]; then
    python3 -m venv --clear "$work/twine"
    "$work/twine/bin/pip" install --quiet --disable-pip-version-check twine==6.2.0
    touch "$work/twine/ready"
  fi
  "$work/twine/bin/twine" check --strict "${wheels[@]}"
  run "$work/twine/bin/twine" upload --non-interactive --skip-existing "${wheels[@]}"
}

publish_npm() {
  local file package provenance=()
  # Not the cache in the home folder, to which another user may have written.
  npm_config_cache=$work/npm-$(id -u)
  export npm_config_cache
  # A signed statement of the workflow and commit that made the package; npm can make one in a workflow only.
  if [ -n "${ACTIONS_ID_TOKEN_REQUEST_URL:-}" ]; then provenance=(--provenance); fi
  for file in $(files npm); do
    package=$(tar -xzOf "$dist/$file" package/package.json | python3 -c 'import json, sys; print(json.load(sys.stdin)["name"])')
    if [ -n "$dry" ]; then
      npm publish --dry-run --access public --loglevel=error "$dist/$file" >/dev/null
    elif npm view "$package@$version" version >/dev/null 2>&1; then
      say "$package $version is published already"
      continue
    fi
    run npm publish --access public ${provenance[@]+"${provenance[@]}"} "$dist/$file"
  done
}

check
for destination in "${destinations[@]}"; do "publish_$destination"; done
