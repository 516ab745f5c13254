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
