#!/usr/bin/env bash
# Runs clang-tidy (.clang-tidy) over the sources, those changed last first, and fails when it finds
# anything. Needs a configured build tree with generated headers (preset dev, built).
#
#   scripts/check_tidy.sh [--seconds=N] [FILE...]
#
# After N seconds (540) no further file is begun; the output says how many were left out.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
seconds=540
if [[ ${1:-} == --seconds=* ]]; then seconds=${1#*=}; shift; fi
command -v clang-tidy >/dev/null || die "clang-tidy is missing: scripts/install_dependencies.sh --test"
database=build/compile_commands.json
[ -f "$database" ] || die "$database is missing: run scripts/test.sh, or cmake --preset dev and build"

# Sources by the time of their last commit, newest first; uncommitted changes before all others.
newest_first() {
  { git diff --name-only HEAD -- '*.cc'
    git ls-files --others --exclude-standard -- '*.cc'
    git log --name-only --pretty=format: -- '*.cc'
    git ls-files '*.cc'; } | awk 'NF && !seen[$0]++'
}
files=("$@")
if [ ${#files[@]} = 0 ]; then
  mapfile -t files < <(newest_first | while read -r file; do
    [ -f "$file" ] && grep -qF "/$file\"" "$database" && echo "$file"; done)
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export work deadline=$((EPOCHSECONDS + seconds))
check() {
  if [ "$EPOCHSECONDS" -ge "$deadline" ]; then echo "$1" >>"$work/left_out"; return; fi
  clang-tidy -p build --quiet "$1" >"$work/log.$$" 2>/dev/null ||
    { cat "$work/log.$$"; echo "$1" >>"$work/failed"; }
  echo "$1" >>"$work/done"
}
export -f check
printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P "$(nproc)" bash -c 'check "$1"' check
num_done=$(wc -l <"$work/done" 2>/dev/null || echo 0)
[ ! -f "$work/left_out" ] || say "tidy: $(wc -l <"$work/left_out") of ${#files[@]} files left out after $seconds s"
[ ! -f "$work/failed" ] || die "clang-tidy found something in $(wc -l <"$work/failed") files, see above"
say "tidy: ok, $num_done files"
