#!/usr/bin/env bash
# Everything that is checked before a change is good, a named stage each, and how long each took.
#
#   scripts/full_check.sh [--changed] [STAGE...]
#
# Without arguments: every stage, over everything. With --changed, as CI runs it: clang-tidy over changed files only, the lock check
# without the tests, and costly stages (cuda, deploy) only where their folders changed; what "changed" means is said in
# scripts/common.sh (changed_base).
# A stage that fails does not keep the later ones from running, except those that need its result. STAGEs:
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
export UNIQUANF_WERROR=ON
stages=(
  install   # packages that the other stages need
  format    # clang-format
  includes  # directions of includes
  files     # product files over 400 lines have a word in DESIGN.md
  build     # g++ -Werror, everything
  test      # scripts/test.sh: the README's test command
  locks     # clang 14: it compiles all of our code too, and -Wthread-safety checks the locks
  tidy      # clang-tidy
  page      # the live page and the report: built anew and compared, tried in Chromium; needs npm
  tokenizers  # tokenizers and chat templates against the libraries that define them; needs npm
  cuda      # nvcc compiles the CUDA backend
  deploy    # alerts, chart, images
  packages  # Debian packages: lintian, and a bare root
)
usage() { sed -n '2,9s/^# \{0,1\}//p' "$0"; sed -n '/^stages=(/,/^)/{/^  /p}' "$0"; exit "$1"; }

changed=false
chosen=()
for argument in "$@"; do
  case $argument in
    --changed) changed=true ;;
    --help) usage 0 ;;
    *) [[ " ${stages[*]} " == *" $argument "* ]] || { echo "unknown: $argument" >&2; usage 2 >&2; }
       chosen+=("$argument") ;;
  esac
done
[ ${#chosen[@]} -gt 0 ] || chosen=("${stages[@]}")

# Whether a costly stage may be left out: --changed was given and nothing under the paths has changed.
unchanged() { $changed && ! has_changed "$@" && echo "not changed since $(changed_base_name): ${*}"; }

stage_install() { scripts/install_dependencies.sh --test; }
stage_format() { scripts/check_format.sh; }
stage_includes() { scripts/check_includes.sh; }
stage_files() { scripts/check_files.sh; }
stage_build() { build dev; }
stage_test() { scripts/test.sh; }
stage_locks() {
  local sources=()
  if $changed; then mapfile -t sources < <(git ls-files 'common/*.cc' 'server/*.cc' 'worker/*.cc' 'client/*.cc'); fi
  scripts/check_locks.sh "${sources[@]}"
}
stage_tidy() {
  if $changed; then scripts/check_tidy.sh --changed --seconds=400; else scripts/check_tidy.sh --seconds=7200; fi
}
stage_tokenizers() {
  unchanged worker/text scripts/tokenizer_oracle scripts/tokenizer_check.sh tests/golden/tokenizers tests/golden/chat_templates && return 77
  scripts/tokenizer_check.sh
}
stage_page() {
  unchanged server/page server/http docs/SPEC.md worker/task/report_html.cc scripts/page_check.sh && return 77
  scripts/page_check.sh
}
stage_cuda() {
  unchanged worker/backend worker/ops worker/packed worker/block worker/quant common/base cmake CMakeLists.txt CMakePresets.json &&
    return 77
  command -v nvcc >/dev/null || { echo "there is no nvcc here"; return 77; }
  UNIQUANF_WERROR="" build cuda-compile  # g++ sees other parts of the sources with CUDA; its warnings there are not looked at yet
}
stage_deploy() {
  if $changed; then scripts/deploy_check.sh --changed; else scripts/deploy_check.sh; fi
}

stage_packages() {
  unchanged packaging cmake client/python proto scripts/packages.sh scripts/packages_check.sh && return 77
  scripts/packages.sh build
  scripts/packages_check.sh build
}

needs_test() { echo build; }
needs_packages() { echo build; }
needs_locks() { echo build; }
needs_tidy() { echo build; }
needs_page() { echo build; }
needs_tokenizers() { echo build; }
run_parts stage "${chosen[@]}"
