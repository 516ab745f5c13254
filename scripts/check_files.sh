#!/usr/bin/env bash
# Fails when a file of product code has more than 400 lines and DESIGN.md does not name it under "Long files" with the reason.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
limit=400
reasons=$(sed -n '/^## Long files/,/^## /p' DESIGN.md)
bad=0
while read -r lines file; do
  if [ "$lines" -gt $limit ] && ! grep -qF "\`$file\`" <<<"$reasons"; then
    echo "$file has $lines lines; split it, or say in DESIGN.md, \"Long files\", why it is one" >&2
    bad=1
  fi
  if [ "$lines" -le $limit ] && grep -qF "\`$file\`" <<<"$reasons"; then
    echo "$file has $lines lines: its reason in DESIGN.md can go"
  fi
done < <(git ls-files --cached --others --exclude-standard common server worker client proto | grep -E '\.(cc|h|cu|cuh|proto|py)$' |
  xargs -r wc -l | grep -v ' total$')
[ $bad = 0 ] || die "product files over $limit lines, see above"
say "lengths of files: ok"
