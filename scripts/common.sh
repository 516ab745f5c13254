# Helpers of the scripts in this folder; sourced, not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\n==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Runs a command as root: directly, or through sudo.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "installing packages needs root: run scripts/install_dependencies.sh as root, then this again"
  fi
}

# The compiler's cache also finds what was compiled in another folder: a fresh clone, a second work tree.
export CCACHE_BASEDIR=${CCACHE_BASEDIR-$PWD} CCACHE_NOHASHDIR=1

# The commit that "changed" counts from: where this branch left main; on main itself, whose merges bring many commits at once, the
# newest commit of main that is older than the last by CHANGED_HOURS (8) at least. Prints nothing where there is none: then
# everything counts as changed.
changed_base() {
  local base
  base=$(git merge-base HEAD main 2>/dev/null || true)
  if [ -z "$base" ] || [ "$base" = "$(git rev-parse HEAD)" ]; then
    base=$(git rev-list -1 --first-parent --min-age=$(($(git log -1 --format=%ct) - ${CHANGED_HOURS:-8} * 3600)) HEAD 2>/dev/null || true)
  fi
  echo "$base"
}
changed_base_name() { git log -1 --format='%h (%cs)' "$(changed_base)"; }

# Files that differ from changed_base, committed or not, under the given paths (none: everywhere).
changed_files() {
  local base
  base=$(changed_base)
  if [ -z "$base" ]; then git ls-files -- "$@"
  else
    { git diff --name-only --diff-filter=d "$base" -- "$@"
      git ls-files --others --exclude-standard -- "$@"; } | sort -u
  fi
}

# Whether anything under the given paths differs from changed_base, deleted files included.
has_changed() {
  local base
  base=$(changed_base)
  [ -z "$base" ] || ! git diff --quiet "$base" -- "$@" || [ -n "$(git ls-files --others --exclude-standard -- "$@")" ]
}

# Number of build jobs: one a core, but no more than one for every 2 GiB of memory.
build_jobs() {
  local cores memory_gib
  cores=$(nproc)
  memory_gib=$(awk '/MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)
  local by_memory=$(( memory_gib / 2 > 0 ? memory_gib / 2 : 1 ))
  echo $(( cores < by_memory ? cores : by_memory ))
}

# Configures and builds preset $1; the remaining arguments are targets (none: everything).
build() {
  local preset=$1; shift
  say "building (preset $preset)"
  cmake --preset "$preset" >"build-log-$preset.txt" 2>&1 || {
    tail -20 "build-log-$preset.txt" >&2
    die "configuring failed; the whole output is in build-log-$preset.txt. Is a package missing? Run scripts/install_dependencies.sh"
  }
  cmake --build --preset "$preset" -j "$(build_jobs)" ${1:+--target "$@"} ||
    die "building failed; see the compiler's messages above"
}

# Runs functions PREFIX_NAME for every NAME, each in a process of its own, prints how long each took, and ends with an error when
# one failed (77: skipped). Where needs_NAME names another of them that failed, NAME is not run.
#   run_parts PREFIX NAME...
run_parts() {
  local prefix=$1 name needed code started
  shift
  local -A result=() took=()
  local failed=()
  for name in "$@"; do
    needed=$(if declare -F "needs_$name" >/dev/null; then "needs_$name"; fi)
    if [ -n "$needed" ] && [[ ${result[$needed]:-ok} == FAILED* ]]; then
      result[$name]="not run: $needed failed"
      failed+=("$name")
      continue
    fi
    printf '\n======== %s\n' "$name"
    started=$SECONDS
    set +e  # and not in a condition, in which "set -e" would not hold
    (set -e; "${prefix}_$name")
    code=$?
    set -e
    took[$name]=$((SECONDS - started))
    case $code in
      0) result[$name]=ok ;;
      77) result[$name]=skipped ;;
      *) result[$name]="FAILED ($code)"; failed+=("$name") ;;
    esac
  done
  printf '\n%-10s %7s\n' "$prefix" min:s
  for name in "$@"; do
    printf '%-10s %4d:%02d  %s\n' "$name" $((${took[$name]:-0} / 60)) $((${took[$name]:-0} % 60)) "${result[$name]}"
  done
  printf '%-10s %4d:%02d\n' total $((SECONDS / 60)) $((SECONDS % 60))
  [ ${#failed[@]} = 0 ] || die "failed: ${failed[*]}"
}
