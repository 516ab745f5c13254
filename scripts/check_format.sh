#!/usr/bin/env bash
# Fails when a source file is not formatted as .clang-format says; `--fix` formats them.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
command -v clang-format >/dev/null || die "clang-format is missing: scripts/install_dependencies.sh --test"
mode=(--dry-run -Werror)
if [ "${1:-}" = --fix ]; then mode=(-i); fi
git ls-files --cached --others --exclude-standard '*.cc' '*.h' '*.cu' '*.cuh' | xargs clang-format "${mode[@]}" ||
  die "files are not formatted, see above: scripts/check_format.sh --fix"
say "format: ok"
