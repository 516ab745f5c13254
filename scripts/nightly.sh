#!/usr/bin/env bash
# What takes too long for every change: both sanitizers over the whole suite, libFuzzer over every parser, clang-tidy over
# everything, the guides of the API in every language. Prints how long each part took; ends with an error when one failed.
#
#   scripts/nightly.sh [--fuzz-seconds=N] [PART...]
#
# N (300) is for each parser. PARTs: asan tsan fuzz tidy locks guides (all when none is named).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
fuzz_seconds=300 parts=()
for argument in "$@"; do
  case $argument in
    --fuzz-seconds=*) fuzz_seconds=${argument#*=} ;;
    asan | tsan | fuzz | tidy | locks | guides) parts+=("$argument") ;;
    *) die "unknown argument $argument; PARTs are asan tsan fuzz tidy locks guides" ;;
  esac
done
[ ${#parts[@]} -gt 0 ] || parts=(asan tsan fuzz tidy locks guides)

scripts/install_dependencies.sh --nightly
part_asan() { scripts/check_sanitizers.sh asan; }
part_tsan() { scripts/check_sanitizers.sh tsan; }
part_fuzz() { scripts/fuzz.sh --seconds="$fuzz_seconds"; }
part_tidy() { build dev && scripts/check_tidy.sh --seconds=14400; }
part_locks() { build dev && scripts/check_locks.sh; }
part_guides() { build dev && ctest --preset dev -R '^DocsTest'; }
run_parts part "${parts[@]}"
