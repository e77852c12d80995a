#!/usr/bin/env bash
# publish.sh DESTINATION...   publishes the packages in dist/. For the release workflow.
#
#   github   a release of the current tag with all files (gh, GH_TOKEN)
#   image    the index of images to IMAGE, for example ghcr.io/OWNER/multilangd (skopeo, logged in)
#   chart    the Helm chart to oci://CHART, for example ghcr.io/OWNER/charts (helm, logged in)
#   pypi     the wheels (twine, TWINE_USERNAME and TWINE_PASSWORD)
#   npm      the npm packages, those of the platforms first (npm, NODE_AUTH_TOKEN)
# shellcheck disable=SC2046,SC2086 # lists of targets are words
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "$0")/common.sh"

for destination in "$@"; do
  case $destination in
    github)
      gh release create "v$version" --verify-tag --title "multilangd $version" --notes-file CHANGELOG.md \
        $(find "$dist" -maxdepth 1 -type f | sort)
      ;;
    image)
      skopeo copy --all "oci:$dist/image:$version" "docker://${IMAGE:?}:$version"
      skopeo copy --all "oci:$dist/image:$version" "docker://$IMAGE:latest"
      ;;
    chart) "$(go_tool "$helm_module")" push "$dist/multilangd-chart-$version.tgz" "oci://${CHART:?}" ;;
    pypi)
      python3 -m venv --clear "$work/twine"
      "$work/twine/bin/pip" install --quiet --disable-pip-version-check twine
      "$work/twine/bin/twine" upload --non-interactive "$dist"/*.whl
      ;;
    npm)
      for package in "$dist"/multilangd-{linux,darwin}-*-"$version".tgz "$dist/multilangd-$version.tgz"; do
        npm publish --access public "$package"
      done
      ;;
    *) fail "unknown destination $destination (one of: github image chart pypi npm)" ;;
  esac
done
