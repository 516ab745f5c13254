#!/usr/bin/env bash
# Builds the Debian packages into build/packages and has lintian look at them; see packaging/README.md.
#   scripts/packages.sh [BUILD_DIR]
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

build=${1:-build}
umask 022
cmake --build "$build" -j "$(build_jobs)" --target uniquanf-server uniquanf-worker uniquanf-cli uniquanf-batch uniquanf-manuals uniquanf-python
rm -rf "$build/packages"
say "packages"
(cd "$build" && cpack -G DEB >packaging/cpack.log 2>&1) || { tail -20 "$build/packaging/cpack.log" >&2; die "cpack failed"; }
ls -l "$build"/packages/*.deb
if command -v lintian >/dev/null; then
  say "lintian"
  lintian --fail-on error --display-level '>=warning' "$build"/packages/*.deb
fi
