#!/usr/bin/env bash
# A throw-away PostgreSQL server for tests and trials, from Debian's package postgresql; nothing is changed outside
# DIR, except that root's cluster lies below /tmp (PostgreSQL refuses to run as root, so it runs as user postgres or nobody).
#
#   postgres-server.sh start DIR [PORT]   a new empty cluster on 127.0.0.1; prints the URI for uniquanf-server's --state
#   postgres-server.sh crash DIR          kill -9 to all of it
#   postgres-server.sh restart DIR        up again on the same data and port, from now on without fsync: its processes
#                                         died, the machine did not, and syncing all files first takes seconds
#   postgres-server.sh stop DIR           stops it and removes the cluster
#
# Exit status: 0; 77 when PostgreSQL is not installed; 1 for other failures.
set -euo pipefail

die() { echo "postgres-server.sh: $1" >&2; exit "${2:-1}"; }

bin() {
  local dir
  for dir in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -rV) "$(pg_config --bindir 2>/dev/null || :)"; do
    [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ] && { echo "$dir"; return; }
  done
  die "PostgreSQL is not installed; run scripts/install_dependencies.sh, or apt-get install postgresql" 77
}

# Runs a command as a user that PostgreSQL accepts, from a directory which that user may be in.
unprivileged() {
  if [ "$(id -u)" != 0 ]; then "$@"; return; fi
  local user=postgres
  id "$user" >/dev/null 2>&1 || user=nobody
  (cd / && setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups "$@")
}

# Not of the range from which outgoing connections take theirs: one could lie there when a crashed
# server starts again.
free_port() {
  python3 - <<'PY'
import random, socket
low = int(open("/proc/sys/net/ipv4/ip_local_port_range").read().split()[0])
while True:
    port = random.randrange(10000, low) if low > 20000 else random.randrange(1024, 65535)
    try:
        socket.socket().bind(("127.0.0.1", port))
    except OSError:
        continue
    print(port)
    break
PY
}

start() {
  local dir=$1 port=${2:-} bin data
  bin=$(bin)
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  [ -e "$dir/data" ] && stop "$dir"
  [ -n "$port" ] || port=$(free_port)
  if [ "$(id -u)" = 0 ]; then
    data=$(unprivileged mktemp -d /tmp/uniquanf-postgres-XXXXXX)
  else
    data=$dir/cluster
  fi
  ln -sfn "$data" "$dir/data"
  echo "$port" >"$dir/port"
  # The password guards nothing here; it shows whether a password shows up where it should not.
  unprivileged bash -c 'echo uniquanf-password >"$1.password" &&
    "$2/initdb" -D "$1" -U uniquanf --pwfile="$1.password" --auth=scram-sha-256 --encoding=UTF8 --locale=C \
      --no-sync && rm "$1.password"' _ "$data" "$bin" >"$dir/initdb.log" 2>&1 ||
    die "initdb failed: $(tail -3 "$dir/initdb.log")"
  unprivileged tee -a "$data/postgresql.conf" >/dev/null <<CONF
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = ''
max_connections = 50
logging_collector = off
CONF
  run "$dir"
  PGPASSWORD=uniquanf-password "$bin/psql" -q -h 127.0.0.1 -p "$port" -U uniquanf -d postgres \
    -c 'CREATE DATABASE uniquanf' || { stop "$dir"; die "cannot create the database"; }
  echo "postgresql://uniquanf:uniquanf-password@127.0.0.1:$port/uniquanf"
}

# Further arguments are the server's.
run() {
  local dir=$1 bin data
  shift
  bin=$(bin)
  data=$(readlink "$dir/data") || die "no cluster in $dir"
  # A killed server leaves this behind; a live one would not let another start on its data anyway.
  unprivileged rm -f "$data/postmaster.pid"
  unprivileged "$bin/pg_ctl" -D "$data" -w -t 60 -l "$data/server.log" -o "$*" start >/dev/null ||
    die "PostgreSQL did not start: $(tail -5 "$data/server.log")"
}

crash() {
  local dir=$1 data pid children
  data=$(readlink "$dir/data") || die "no cluster in $dir"
  pid=$(head -1 "$data/postmaster.pid")
  kill -STOP "$pid" # from now on it has no new children
  children=$(ps -o pid= --ppid "$pid" || :)
  kill -9 $pid $children 2>/dev/null || :
  for child in $pid $children; do
    for _ in $(seq 100); do
      case "$(ps -o stat= -p "$child" 2>/dev/null)" in ''|Z*) break ;; esac
      sleep 0.05
    done
  done
}

stop() {
  local dir=$1 data
  data=$(readlink "$dir/data") || return 0
  if [ -e "$data/postmaster.pid" ]; then
    unprivileged "$(bin)/pg_ctl" -D "$data" -m immediate -w stop >/dev/null 2>&1 || :
  fi
  rm -rf "$data" "$dir/data" "$dir/port" "$dir/initdb.log"
}

[ -n "${2:-}" ] || die "usage: postgres-server.sh start DIR [PORT] | crash DIR | restart DIR | stop DIR"
case "$1" in
  start) start "$2" "${3:-}" ;;
  restart) run "$2" -c fsync=off ;;
  crash | stop) "$1" "$2" ;;
  *) die "usage: postgres-server.sh start DIR [PORT] | crash DIR | restart DIR | stop DIR" ;;
esac
