#!/usr/bin/env bash
# Everything that needs a GPU, in one run: op, block and quantizer tests, goldens, compute-sanitizer
# and benchmarks, with a short table last.
#
#   scripts/gpu_check.sh BUILD_DIR [OUT_DIR] [PART...]
#
# BUILD_DIR is a build tree, or a folder that holds its programs side by side; logs go to OUT_DIR.
# PARTs: tests goldens sanitizer bench (all of them when none is named).
set -u
build=${1:?usage: gpu_check.sh BUILD_DIR [OUT_DIR] [PART...]}
out=${2:-$(mktemp -d)}
shift; [ $# -gt 0 ] && shift
parts=${*:-tests goldens sanitizer bench}
table=()
failed=0
mkdir -p "$out"

program() { find -L "$build" -type f -name "$1" -perm -u+x -print -quit; }

# check NAME SECONDS COMMAND...: runs, keeps the log, adds a line to the table.
check() {
  local name=$1 limit=$2 start=$SECONDS
  shift 2
  if timeout "$limit" "$@" > "$out/$name.log" 2>&1; then
    table+=("pass  $name  $((SECONDS - start)) s")
  else
    table+=("FAIL  $name  $((SECONDS - start)) s  (exit $?; see $name.log)")
    failed=1
    grep -E "FAILED|Failure|error|check failed" "$out/$name.log" | head -20
  fi
}

tests="cuda_backend_test cuda_attention_test uniquanf_ops_test uniquanf_block_test quantizer_device_test"
goldens="quantizer_golden_test reconstruct_golden_test"
for part in $parts; do
  case $part in
    tests) for t in $tests; do check "$t" 300 "$(program "$t")" --gtest_brief=1; done ;;
    goldens)
      for t in $goldens; do check "$t" 300 "$(program "$t")" '--gtest_filter=*cuda*'; done ;;
    sanitizer)
      # The largest cases take minutes under the checker and show nothing that small ones do not.
      # All at once: the checkers keep a core busy each, and the device hardly.
      export UNIQUANF_SMALL_CASES=1
      for tool in memcheck racecheck initcheck; do
        for t in $tests; do
          filter='*Cuda*:*DeviceAgreement*'
          options=
          # One test asks for more memory than there is.
          [ $tool = memcheck ] && options='--report-api-errors no'
          # initcheck does not see what cuBLASLt's bf16 kernels store (by the copy engine).
          [ $tool.$t = initcheck.uniquanf_block_test ] && filter='*CudaF32*'
          (timeout 280 compute-sanitizer --tool "$tool" $options --error-exitcode 9 \
            "$(program "$t")" --gtest_filter="$filter" --gtest_brief=1 \
            > "$out/$tool.$t.log" 2>&1; echo $? > "$out/$tool.$t.exit") &
        done
      done
      wait
      for tool in memcheck racecheck initcheck; do
        for t in $tests; do
          code=$(cat "$out/$tool.$t.exit")
          summary=$(grep -hE "SUMMARY" "$out/$tool.$t.log" | tail -1 | sed 's/=//g')
          if [ "$code" = 0 ]; then
            table+=("pass  $tool.$t  $summary")
          else
            table+=("FAIL  $tool.$t  (exit $code) $summary")
            failed=1
          fi
        done
      done
      unset UNIQUANF_SMALL_CASES ;;
    bench)
      bench=$(program block_bench)
      init=$(program init_bench)
      check block.8b.4bit 120 "$bench" --bits=4
      check block.8b.4bit.inline 120 "$bench" --bits=4 --overlap=0 --split=0
      check block.8b.3bit 120 "$bench" --bits=3 --split=0
      check block.8b.2bit 120 "$bench" --bits=2 --split=0
      check block.8b.g128 120 "$bench" --bits=4 --group_size=128 --split=0
      check block.70b.4bit 180 "$bench" --shape=llama3-70b --bits=4 --steps=20 --split=0
      check init.grid1 120 "$init" --grid=1
      check init.grid20 120 "$init" --grid=20 ;;
    *) echo "unknown part: $part" >&2; exit 2 ;;
  esac
done

for log in "$out"/block.8b.4bit.log; do [ -f "$log" ] && cat "$log"; done
for log in "$out"/block.*.log; do
  [ -f "$log" ] && echo "$(basename "$log" .log): $(grep -E '^(step  |peak)' "$log" | tr -s ' ' | paste -sd';')"
done
cat "$out"/init.*.log 2> /dev/null
printf '%s\n' "${table[@]}"
exit $failed
