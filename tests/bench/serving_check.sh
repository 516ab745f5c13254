#!/usr/bin/env bash
# What serving needs a GPU for, in one run; a table last, exit 1 when a check fails.
#
#   tests/bench/serving_check.sh BUILD_DIR OUT_DIR NAME=MODEL,TOKENS... [-- PART...]
#
# BUILD_DIR holds uniquanf-batch and packed_bench, built with CUDA. MODEL is a checkpoint, TOKENS a safetensors file with
# "valid". PARTs: bench packed python generate (all when none is named). python needs torch, transformers and triton.
set -u
build=${1:?usage: serving_check.sh BUILD_DIR OUT_DIR NAME=MODEL,TOKENS... [-- PART...]}
out=${2:?OUT_DIR}
shift 2
models=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do models+=("$1"); shift; done
[ $# -gt 0 ] && shift
parts=${*:-bench packed generate python}
here=$(dirname "$0")
failed=0
table=()
mkdir -p "$out"
program() { find -L "$build" -type f -name "$1" -perm -u+x -print -quit; }
batch=$(program uniquanf-batch)
note() { table+=("$1"); echo "$1"; }
field() { python3 -c 'import json,sys; print(json.loads(sys.stdin.read().strip().splitlines()[-1])[sys.argv[1]])' "$1"; }

# artifact NAME MODEL BITS GROUP: made once, without calibration.
artifact() {
  local to=$out/$1-$3-$4
  [ -f "$to/manifest.json" ] || "$batch" quantize --model "$2" --output "$to" --method alternating --bits "$3" \
    --group-size "$4" > "$to.log" 2>&1 || { note "FAIL  quantize $to: $(tail -1 "$to.log")"; failed=1; return 1; }
  echo "$to"
}
evaluate() { "$batch" eval --model "$1" --tokens "$2" --max-windows "$3" --json "${@:4}"; }

for part in $parts; do
  case $part in
    bench)
      "$(program packed_bench)" --layers=16 --prefill=0 --bits=4,3,2 --group_sizes=0,64,128 > "$out/bench.log" 2>&1 || failed=1
      cat "$out/bench.log"
      while read -r line; do
        share=$(sed -nE 's/.*= ([0-9.]+)% of the copy.*/\1/p' <<< "$line")
        [ -z "$share" ] && continue
        verdict=$(awk -v s="$share" 'BEGIN { print (s >= 65 ? "ok  " : "FAIL") }')
        [ "$verdict" = FAIL ] && failed=1
        note "$verdict  linears >= 65%: $line"
      done < "$out/bench.log" ;;
    packed)
      for model in "${models[@]}"; do
        name=${model%%=*}; rest=${model#*=}; path=${rest%%,*}; tokens=${rest#*,}
        for bits in 2 3 4 5 6 7 8; do
          for group in 0 32 64 128; do
            at=$(artifact "$name" "$path" $bits $group) || continue
            p=$(evaluate "$at" "$tokens" 4 --packed | field mean_nll)
            d=$(evaluate "$at" "$tokens" 4 --no-packed | field mean_nll)
            awk -v p="$p" -v d="$d" 'BEGIN { e = p - d; exit (e < 0 ? -e : e) <= 1e-4 ? 0 : 1 }' &&
              note "ok    packed eval $name $bits bits, groups of $group: $p, dequantized $d" ||
              { note "FAIL  packed eval $name $bits bits, groups of $group: $p, dequantized $d"; failed=1; }
          done
        done
      done ;;
    generate)
      for model in "${models[@]}"; do
        name=${model%%=*}; rest=${model#*=}; path=${rest%%,*}
        at=$(artifact "$name" "$path" 4 64) || continue
        timeout 60 "$batch" generate "$at" --prompt 'The city of' --max-new-tokens 64 --device cuda > "$out/text.$name" 2>&1 &&
          [ -s "$out/text.$name" ] && note "ok    generate $name on CUDA" || { note "FAIL  generate $name: $(tail -1 "$out/text.$name")"; failed=1; }
      done ;;
    python)
      for model in "${models[@]}"; do
        name=${model%%=*}; rest=${model#*=}; path=${rest%%,*}; tokens=${rest#*,}
        for setting in '3 0' '4 64' '2 64'; do
          read -r bits group <<< "$setting"
          at=$(artifact "$name" "$path" "$bits" "$group") || continue
          [ -d "$at-dequantized" ] || "$batch" export "$at" --output "$at-dequantized" --format dequantized > /dev/null || failed=1
          expected=$(evaluate "$at" "$tokens" 20 --device cpu | field perplexity)
          timeout 300 python3 "$here/serving_check.py" "$at" "$at-dequantized" "$tokens" "$expected" 20 \
            > "$out/python.$name.$bits.log" 2>&1 || failed=1
          grep -E '^(ok|FAIL)|Error' "$out/python.$name.$bits.log" | while read -r l; do echo "$l ($name, $bits bits)"; done
          table+=("$(grep -c ^ok "$out/python.$name.$bits.log") ok, $(grep -c ^FAIL "$out/python.$name.$bits.log") FAIL  transformers $name $bits bits")
          grep -q '^ok' "$out/python.$name.$bits.log" || { tail -3 "$out/python.$name.$bits.log"; failed=1; }
        done
      done ;;
    *) echo "unknown part: $part" >&2; exit 2 ;;
  esac
done
echo; printf '%s\n' "${table[@]}"
exit $failed
