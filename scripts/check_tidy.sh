#!/usr/bin/env bash
# Runs clang-tidy (.clang-tidy) over the sources, those changed last first, and fails when it finds
# anything. Needs a configured build tree with generated headers (preset dev, built).
#
#   scripts/check_tidy.sh [--changed] [--seconds=N] [FILE...]
#
# --changed: sources that differ from changed_base (common.sh), and for each header that does, a source that includes it. After N
# seconds (540) no further file is begun; the output says how many were left out.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
seconds=540 changed=false files=()
for argument in "$@"; do
  case $argument in
    --changed) changed=true ;;
    --seconds=*) seconds=${argument#*=} ;;
    *) files+=("$argument") ;;
  esac
done
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
# Changed sources; a changed header is looked into from the source of its name, or else from one that includes it.
changed_sources() {
  changed_files '*.cc' '*.h' | while read -r file; do
    if [[ $file == *.cc ]]; then echo "$file"
    elif [ -f "${file%.h}.cc" ]; then echo "${file%.h}.cc"
    else { git grep -lF "#include \"$file\"" -- '*.cc' || true; } | sed -n 1p
    fi
  done | sort -u
}
if [ ${#files[@]} = 0 ]; then
  mapfile -t files < <(newest_first | { if $changed; then grep -xFf <(changed_sources) || true; else cat; fi } |
    while read -r file; do if [ -f "$file" ] && grep -qF "/$file\"" "$database"; then echo "$file"; fi; done)
fi
[ ${#files[@]} -gt 0 ] || { say "tidy: nothing to look at"; exit 0; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export work deadline=$((EPOCHSECONDS + seconds))
check() {
  if [ "$EPOCHSECONDS" -ge "$deadline" ]; then echo "$1" >>"$work/left_out"; return; fi
  # The compiler's own warnings are check_locks.sh's and g++'s.
  clang-tidy -p build --quiet --extra-arg=-Wno-everything "$1" >"$work/log.$$" 2>/dev/null ||
    { cat "$work/log.$$"; echo "$1" >>"$work/failed"; }
  echo "$1" >>"$work/done"
}
export -f check
printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P "$(nproc)" bash -c 'check "$1"' check
num_done=$(wc -l <"$work/done" 2>/dev/null || echo 0)
[ ! -f "$work/left_out" ] || say "tidy: $(wc -l <"$work/left_out") of ${#files[@]} files left out after $seconds s"
[ ! -f "$work/failed" ] || die "clang-tidy found something in $(wc -l <"$work/failed") files, see above"
say "tidy: ok, $num_done files"
