#!/usr/bin/env bash
# The completion scripts in the shells themselves, those that are installed: completion_test.sh BIN_DIR
set -euo pipefail
export PATH=$1:$PATH UNIQUANF_SERVER=127.0.0.1:1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
expect() { # shell, line, wanted words, got
  local got
  got=$(tr -s ' \n' '  ' <<<"$4")
  [[ " $got " == *" $3 "* ]] || { echo "$1: \"$2\" gives \"$got\", without \"$3\""; failed=1; }
}

source <(uniquanf completion bash)
in_bash() { COMP_LINE=$1 COMP_POINT=${#1} COMPREPLY=(); _uniquanf_complete; echo "${COMPREPLY[*]}"; }
expect bash "uniquanf li" "list" "$(in_bash 'uniquanf li')"
expect bash "uniquanf list --format=" "table wide json yaml name" "$(in_bash 'uniquanf list --format=')"
expect bash "uniquanf submit --sta" "" "$(in_bash 'uniquanf submit --sta')"
expect bash "uniquanf list --state r" "running" "$(in_bash 'uniquanf list --state r')"
expect bash "uniquanf-batch quantize --meth" "--method" "$(in_bash 'uniquanf-batch quantize --meth')"
expect bash "uniquanf-server --log-level " "debug info warning error" "$(in_bash 'uniquanf-server --log-level ')"
expect bash "uniquanf-worker --dev" "--device" "$(in_bash 'uniquanf-worker --dev')"
mkdir "$work/models"
expect bash "uniquanf submit --model mod" "models" "$(cd "$work" && in_bash 'uniquanf submit --model mod')"

if command -v fish >/dev/null; then
  uniquanf completion fish >"$work/uniquanf.fish"
  in_fish() { HOME=$work fish -c "source $work/uniquanf.fish; complete -C '$1'" 2>&1; }
  expect fish "uniquanf li" "list List jobs" "$(in_fish 'uniquanf li' | tr '\t' ' ')"
  expect fish "uniquanf list --state=r" "--state=running" "$(in_fish 'uniquanf list --state=r')"
fi
if command -v zsh >/dev/null; then
  uniquanf completion zsh >"$work/_uniquanf"
  in_zsh() { # what the function hands to zsh's own, for words and the number of the current one
    zsh -fc "_describe() { print -l -- \${(P)4} }; _files() { print \"files \$*\" }; compdef() { }
      source $work/_uniquanf; words=($1); CURRENT=$2; _uniquanf" 2>&1
  }
  expect zsh "uniquanf li" "list:List jobs" "$(in_zsh 'uniquanf li' 2)"
  expect zsh "uniquanf list --state=r" "--state=running" "$(in_zsh 'uniquanf list --state=r' 3)"
  expect zsh "uniquanf submit --model ''" "files -/" "$(in_zsh "uniquanf submit --model ''" 4)"
fi
exit $failed
