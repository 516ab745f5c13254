#!/usr/bin/env bash
# The live page and the report (server/page): what is committed is what its sources give, its tests in node, and its tests in Chromium.
#
#   scripts/page_check.sh [--build=DIR] [PART...]
#
# PARTs: built (npm ci, build, compare), unit (node), browser (the page over recorded data), live (a real server and worker of DIR,
# default build; left out where they are not built). Ends with 77 where npm, its registry or Chromium is missing, after the parts that
# need none of what is missing.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
build=build parts=()
for argument in "$@"; do
  case $argument in --build=*) build=${argument#*=} ;; *) parts+=("$argument") ;; esac
done
[ ${#parts[@]} -gt 0 ] || parts=(built unit browser live)
command -v npm >/dev/null || { echo "there is no npm here: the page is not built anew"; exit 77; }
page=server/page
skipped=""

(cd "$page" && npm ci --ignore-scripts --no-audit --no-fund --silent) || { echo "npm ci failed; is its registry reachable?"; exit 77; }
chromium=${CHROMIUM:-$(command -v chromium chromium-browser google-chrome | head -1 || true)}

part_built() {
  local out; out=$(mktemp -d)
  (cd "$page" && node scripts/build.mjs "$out")
  diff -r "$out/dist" "$page/dist" && diff -q "$out/report/report.html" "$page/report/report.html" ||
    die "what is committed is not what the sources give: cd $page && npm ci && npm run build, and commit dist and report"
  rm -r "$out"
}
part_unit() { (cd "$page" && npm test --silent); }
part_browser() {
  [ -n "$chromium" ] || { skipped="there is no Chromium here: the page is not looked at"; return 0; }
  (cd "$page" && CHROMIUM=$chromium npm run --silent test:browser)
}
part_live() {
  [ -n "$chromium" ] || return 0
  if [ ! -x "$build/bin/uniquanf-server" ] || [ ! -x "$build/bin/uniquanf-worker" ]; then
    skipped="server and worker are not built in $build: the page is not tried over them"
    return 0
  fi
  local bin; bin=$(cd "$build/bin" && pwd)
  (cd "$page" && CHROMIUM=$chromium UNIQUANF_BIN=$bin npm run --silent test:live)
}
for part in "${parts[@]}"; do
  say "page: $part"
  "part_$part"
done
[ -z "$skipped" ] || { echo "$skipped"; exit 77; }
