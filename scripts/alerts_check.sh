#!/usr/bin/env bash
# Checks alerts, their tests, the dashboard and Prometheus' settings with promtool, and that every metric they name exists.
# Exits with 77 where promtool cannot be had.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

skip() { printf 'SKIPPED: %s\n' "$*"; exit 77; }
packages=()
command -v promtool >/dev/null || packages+=(prometheus)
[ -x /usr/bin/python3 ] || packages+=(python3)
if [ ${#packages[@]} != 0 ]; then
  say "installing ${packages[*]}"
  as_root apt-get update -qq || true
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null ||
    skip "cannot install ${packages[*]} with apt"
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp deploy/prometheus/alerts.yaml deploy/tests/alerts_test.yaml "$scratch/"
sed "s|/etc/prometheus/alerts.yaml|$scratch/alerts.yaml|" docker/prometheus.yaml >"$scratch/prometheus.yaml"

say "alerts"
promtool check rules "$scratch/alerts.yaml"
promtool check config "$scratch/prometheus.yaml"
(cd "$scratch" && promtool test rules alerts_test.yaml)

say "dashboard"
/usr/bin/python3 -B deploy/tests/dashboard_expressions.py deploy/grafana/uniquanf.json >"$scratch/dashboard.yaml"
promtool check rules "$scratch/dashboard.yaml"

say "names"
/usr/bin/python3 -B deploy/tests/metric_names.py
