#!/usr/bin/env bash
# libFuzzer over every parser of bytes that are not ours, under clang's address and undefined-behaviour sanitizers; prints how
# long each ran and what it did.
#
#   scripts/fuzz.sh [--seconds=N] [TARGET...]
#
# N (60) is for each target. What it learns stays in .cache/fuzz/TARGET, an input that broke something in .cache/fuzz/found;
# `UNIQUANF_FUZZ_TARGET=TARGET build-fuzz/bin/uniquanf_fuzz FILE` runs it again. tests/fuzz/README.md tells the rest.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
seconds=60 targets=()
for argument in "$@"; do
  case $argument in --seconds=*) seconds=${argument#*=} ;; *) targets+=("$argument") ;; esac
done
build fuzz
program=$PWD/build-fuzz/bin/uniquanf_fuzz
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(UNIQUANF_FUZZ_TARGET=list "$program")
mkdir -p .cache/fuzz/found
export seconds program UBSAN_OPTIONS=print_stacktrace=1

# One target: seeds first, then the clock.
fuzz() {
  local folder=.cache/fuzz/$1 log=.cache/fuzz/$1.log code=0 started=$SECONDS
  mkdir -p "$folder"
  export UNIQUANF_FUZZ_TARGET=$1
  UNIQUANF_FUZZ_SEEDS=$folder "$program" >/dev/null
  "$program" "$folder" -max_total_time="$seconds" -rss_limit_mb=3072 -malloc_limit_mb=2048 -timeout=20 -max_len=16384 -dict="$folder.dict" \
    -print_final_stats=1 -artifact_prefix=".cache/fuzz/found/$1-" >"$log" 2>&1 || code=$?
  if [ $code = 0 ]; then
    printf '%-24s %5d s  %s\n' "$1" $((SECONDS - started)) \
      "$(awk '/number_of_executed_units/ {n = $2} /^#.*cov:/ {for (i = 1; i < NF; ++i) if ($i == "cov:") c = $(i + 1)} END {print n " inputs, " c " edges"}' "$log")"
  else
    grep -E 'ERROR|error:|check failed|SUMMARY|Test unit written' "$log" | head -8
    printf '%-24s %5d s  FAILED, see %s\n' "$1" $((SECONDS - started)) "$log"
    return 1
  fi
}
export -f fuzz
printf '%s\0' "${targets[@]}" | xargs -0 -n 1 -P "$(nproc)" bash -c 'fuzz "$0"' || die "the fuzzer found something, see above"
say "fuzz: ok, ${#targets[@]} targets, $seconds s each"
