#!/usr/bin/env bash
# Installs what is missing, builds everything and runs all tests. Arguments go to ctest, for example
# `scripts/test.sh -R SafetensorsTest`.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

scripts/install_dependencies.sh --test
build dev
say "running the tests"
ctest --preset dev -j "$(nproc)" "$@"
