#!/usr/bin/env bash
# Runs alerts_check.sh, chart_check.sh and images_check.sh; with --changed only if docker/, deploy/ or scripts/ differ from the
# commit before (on a branch: from where it left main), or have changes that are not committed; where CI is set, always: what a
# continuous integration saw last is not to be known in a fresh clone. With --without-images the first two alone. What a machine
# cannot run is skipped with its reason.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

changed=false images=true
for argument in "$@"; do
  case $argument in
    --changed) changed=true ;;
    --without-images) images=false ;;
    *) die "unknown argument $argument; known are --changed and --without-images" ;;
  esac
done

if $changed && [ -z "${CI:-}" ] && git rev-parse --verify -q 'HEAD^' >/dev/null; then
  base=$(git merge-base HEAD main 2>/dev/null || true)
  if [ -z "$base" ] || [ "$base" = "$(git rev-parse HEAD)" ]; then base=$(git rev-parse 'HEAD^'); fi
  if git diff --quiet "$base" -- docker deploy scripts .dockerignore && [ -z "$(git status --porcelain -- docker deploy scripts)" ]; then
    echo "docker/, deploy/ and scripts/ are as in $(git rev-parse --short "$base"): images and chart are not checked"
    exit 0
  fi
fi

for check in alerts_check chart_check images_check; do
  [ $check != images_check ] || $images || continue
  say "scripts/$check.sh"
  code=0
  "scripts/$check.sh" || code=$?
  [ $code = 0 ] || [ $code = 77 ] || die "scripts/$check.sh failed with $code"
done
