#!/usr/bin/env bash
# kustomize.sh [FILE]   renders the Helm chart with its default values into the Kustomize base: FILE is
# deploy/kustomize/workers.yaml by default. packaging/test.sh chart fails if that file differs from the chart.
set -euo pipefail
# shellcheck source=packaging/common.sh
. "$(dirname "$0")/common.sh"
file=${1:-deploy/kustomize/workers.yaml}
helm=$(go_tool "$helm_module")
{
  echo "# Generated from packaging/chart by packaging/kustomize.sh: change the chart, then run the script."
  # What belongs to Helm is left out: kustomize gives the ConfigMap a name by its content.
  "$helm" template multilangd packaging/chart --kube-version 1.31.0 --set image.repository=multilangd --set image.tag=latest \
    --set existingConfigMap=multilangd |
    sed '/^# Source: /d; /helm\.sh\/chart:/d; /app\.kubernetes\.io\/managed-by:/d; /app\.kubernetes\.io\/version:/d
      /checksum\/properties:/d; /# A changed properties file replaces the pods/d'
} >"$file"
