#!/usr/bin/env bash
# Fails when a source file is not formatted as .clang-format says.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
command -v clang-format >/dev/null || die "clang-format is missing: scripts/install_dependencies.sh --test"
git ls-files '*.cc' '*.h' | xargs clang-format --dry-run -Werror
say "format: ok"
