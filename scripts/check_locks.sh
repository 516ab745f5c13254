#!/usr/bin/env bash
# Compiles every source with clang (syntax only) as the compilation database says, and fails where clang cannot, or where what a
# lock guards is touched without it: -Wthread-safety checks ABSL_GUARDED_BY and its like, which g++ takes for comments. Needs a configured and built tree of preset dev, for generated headers.
#
#   scripts/check_locks.sh [FILE...]
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
command -v clang++ >/dev/null || die "clang++ is missing: scripts/install_dependencies.sh --test"
database=build/compile_commands.json
[ -f "$database" ] || die "$database is missing: run scripts/test.sh, or cmake --preset dev and build"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A line a source: its flags without compiler, optimization and output.
python3 - "$PWD" "$database" "$@" >"$work/commands" <<'PYTHON'
import json, os, shlex, sys
root, database, only = sys.argv[1], sys.argv[2], set(sys.argv[3:])
folders = ("common/", "server/", "worker/", "client/", "tests/")
seen = set()
for entry in json.load(open(database)):
    file = os.path.relpath(os.path.join(entry["directory"], entry["file"]), root)
    if file in seen or not file.endswith(".cc") or not file.startswith(folders) or (only and file not in only):
        continue
    seen.add(file)
    words = shlex.split(entry["command"])
    flags, skip = [], False
    for word in words[1:]:
        if skip or word == "-o":
            skip = not skip
        elif word.startswith(("-D", "-I", "-std=", "-W", "-w", "-m")):
            flags.append(word)
        elif word == "-isystem":
            flags.append(word)
        elif flags and flags[-1] == "-isystem":
            flags.append(word)
    print(shlex.join(["clang++", "-fsyntax-only", *flags, "-Wno-everything", "-Wthread-safety", "-Werror", file]))
PYTHON
[ -s "$work/commands" ] || die "no source of ours in $database"
tr '\n' '\0' <"$work/commands" | xargs -0 -n 1 -P "$(nproc)" bash -c 'bash -c "$0" || exit 1' ||
  die "clang found something, see above"
say "locks: ok, $(wc -l <"$work/commands") files"
