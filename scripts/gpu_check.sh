#!/usr/bin/env bash
# Everything that needs a GPU, in one run: op, block and quantizer tests, goldens, compute-sanitizer
# and benchmarks, with a short table last.
#
#   scripts/gpu_check.sh BUILD_DIR [OUT_DIR] [PART...]
#
# BUILD_DIR is a build tree, or a folder that holds its programs side by side; logs go to OUT_DIR.
# PARTs: tests goldens sanitizer bench job state (all but the last two when none is named). state compares the optimizer's two kinds
# of state: times in turn, perplexity over seeds; CHECK_MODELS names the models (tests/bench/state_table.py).
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

# sanitize TOOL TEST SHARD SHARDS: one part of a test program's CUDA cases under the checker.
sanitize() {
  local log=$out/$1.$2.$3 options=
  [ "$1" = memcheck ] && options='--report-api-errors no'  # one test asks for too much memory
  # cuBLASLt's products are announced through NVTX (cuda_matmul.cc).
  [ "$1" = initcheck ] && options='--nvtx yes'
  GTEST_TOTAL_SHARDS=$4 GTEST_SHARD_INDEX=$3 timeout "${SANITIZER_SECONDS:-480}" \
    compute-sanitizer --tool "$1" $options --error-exitcode 9 "$(program "$2")" \
    --gtest_filter='*Cuda*:*Case*' --gtest_brief=1 > "$log.log" 2>&1
  echo $? > "$log.exit"
}

tests="cuda_backend_test cuda_attention_test packed_test uniquanf_ops_test uniquanf_block_test quantizer_device_test"
goldens="quantizer_golden_test reconstruct_golden_test family_incremental_test"
for part in $parts; do
  case $part in
    tests) for t in $tests; do check "$t" 300 "$(program "$t")" --gtest_brief=1; done ;;
    goldens)
      for t in $goldens; do check "$t" 300 "$(program "$t")" '--gtest_filter=*cuda*'; done ;;
    sanitizer)
      # A job a core: the checkers keep a core busy each, and the device hardly. The quantizer's
      # cases are tests of their own, dealt out to jobs. "tool test shard shards" a line.
      for tool in memcheck racecheck initcheck; do
        for t in $tests; do
          shards=2
          [ "$t" = quantizer_device_test ] && shards=12
          [ "$t" = cuda_attention_test ] && shards=1
          for ((shard = 0; shard < shards; ++shard)); do echo "$tool $t $shard $shards"; done
        done
      done | sort -k2,2r -k1,1r > "$out/sanitizer.jobs"
      export -f sanitize program
      export build out
      xargs -P "$(nproc)" -L 1 bash -c 'sanitize "$@"' _ < "$out/sanitizer.jobs"
      for tool in memcheck racecheck initcheck; do
        for t in $tests; do
          codes=$(cat "$out/$tool.$t".*.exit | sort -u | tr '\n' ' ')
          ran=$(cat "$out/$tool.$t".*.log | sed -n 's/^\[==========\] \([0-9]*\) tests* from.* ran.*/\1/p' |
            awk '{ sum += $1 } END { print sum + 0 }')
          summary=$(cat "$out/$tool.$t".*.log | grep -h SUMMARY | sed 's/=//g' | sort | uniq -c |
            tr -s ' ' | paste -sd';')
          if [ "$codes" = "0 " ]; then
            table+=("pass  $tool.$t  $ran tests;$summary")
          else
            table+=("FAIL  $tool.$t  (exits $codes) $ran tests;$summary")
            failed=1
          fi
        done
      done ;;
    bench)
      bench=$(program block_bench)
      init=$(program init_bench)
      check block.8b.4bit 300 "$bench" --bits=4
      check block.8b.4bit.inline 120 "$bench" --bits=4 --overlap=0 --split=0
      check block.8b.3bit 120 "$bench" --bits=3 --split=0
      check block.8b.2bit 120 "$bench" --bits=2 --split=0
      check block.8b.g128 120 "$bench" --bits=4 --group_size=128 --split=0
      check block.70b.4bit 180 "$bench" --shape=llama3-70b --bits=4 --steps=20 --split=0
      check init.grid1 120 "$init" --grid=1
      check init.grid20 120 "$init" --grid=20 ;;
    job)
      "$(program synthetic_checkpoint)" --shape=llama3-8b --layers=4 --out="$out/model" > /dev/null
      job=$(program job_bench)
      paper="--model $out/model --calibration $out/model/tokens.safetensors --epochs 20 --bits 4"
      check job.8b 200 "$job" $paper --work "$out/job"
      check job.8b.host 100 "$job" $paper --work "$out/job-host" --activations host --layers 2
      grep -h -A6 ^layer "$out"/job.*.log
      rm -rf "$out/model" "$out/job" "$out/job-host" ;;
    state)
      # In turn, on the same hot card.
      for bits in 4 3 2; do
        for state in f32 bf16; do
          check "state.8b.${bits}bit.$state" 120 "$(program block_bench)" --bits=$bits --state=$state --split=0
        done
      done
      check state.8b.g128.bf16 120 "$(program block_bench)" --bits=4 --group_size=128 --state=bf16 --split=0
      check state.70b.4bit.bf16 180 "$(program block_bench)" --shape=llama3-70b --bits=4 --steps=20 --state=bf16 --split=0
      check state.floor 300 "$(program block_bench)" --bits=4 --state=bf16
      # shellcheck disable=SC2086  # a list
      check state.quality 500 python3 "$(dirname "$0")/../tests/bench/state_table.py" "$(program uniquanf-batch)" \
        ${CHECK_MODELS:-tiny=examples/tiny,examples/tokens/tiny_calib.safetensors,examples/tokens/tiny_eval.safetensors}
      cat "$out/state.floor.log" "$out/state.quality.log" ;;
    *) echo "unknown part: $part" >&2; exit 2 ;;
  esac
done

for log in "$out"/block.8b.4bit.log; do [ -f "$log" ] && cat "$log"; done
for log in "$out"/block.*.log "$out"/state.*b.*.log; do
  [ -f "$log" ] && echo "$(basename "$log" .log): $(grep -E '^(step  |launches|peak)' "$log" | tr -s ' ' | paste -sd';')"
done
cat "$out"/init.*.log 2> /dev/null
printf '%s\n' "${table[@]}"
exit $failed
