#!/bin/bash
# A real, strict S3 server for tests: Ceph RGW with one monitor and one in-memory OSD, from Debian's
# packages, unpacked into a cache folder; nothing is installed, nothing runs as a service. It listens
# on loopback only and forgets everything when it stops.
#
#   scripts/s3-server.sh start DIR [PORT]   start in DIR (emptied); PORT defaults to a free one.
#                                           Prints the settings that clients need, as NAME=value:
#                                             AWS_ENDPOINT_URL=http://127.0.0.1:PORT ...
#   scripts/s3-server.sh start-durable DIR [PORT]   the same with its objects in files of DIR, for:
#   scripts/s3-server.sh crash DIR          kill -9 to all of it
#   scripts/s3-server.sh restart DIR        up again after that, on the same data and port
#   scripts/s3-server.sh user DIR NAME      another user of it, with keys AKNAME and SKNAME and nothing of his own yet
#   scripts/s3-server.sh stop DIR           end the server that was started in DIR
#   scripts/s3-server.sh fetch              only fill the cache
#
# In a shell: set -a; eval "$(scripts/s3-server.sh start /tmp/s3)"; set +a
# There is one bucket, s3://uniquanf.
# Virtual-host addressing works through http://localhost:PORT (bucket.localhost is loopback for curl).
# Names of buckets have 3 characters or more, multipart parts 5 MiB or more, as at AWS.
# Cache: ${XDG_CACHE_HOME:-$HOME/.cache}/uniquanf/ceph (about 260 MB).
# Exit status: 0; 77 when the packages cannot be fetched or do not run here; 1 for other failures.
set -euo pipefail

CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/uniquanf/ceph"
ROOT="$CACHE/root"
PACKAGES="radosgw ceph-mon ceph-osd ceph-common"
ACCESS_KEY=AKTEST
SECRET_KEY=SKTEST
BUCKET=uniquanf

die() { echo "s3-server.sh: $1" >&2; exit "${2:-1}"; }

fetch() {
  [ -e "$CACHE/complete" ] && return
  for tool in apt-get dpkg python3 curl; do
    command -v "$tool" >/dev/null || die "needs $tool (a Debian 12 system)" 77
  done
  mkdir -p "$CACHE"
  exec 9>"$CACHE/lock"
  flock 9 # two test runs may start at once
  [ -e "$CACHE/complete" ] && return
  rm -rf "$CACHE/debs" "$ROOT"
  mkdir -p "$CACHE/debs" "$ROOT"
  local wanted
  # The packages and those of their dependencies that the system does not have.
  wanted=$(apt-get -s install --no-install-recommends $PACKAGES 2>/dev/null | awk '/^Inst/{print $2}')
  [ -n "$wanted" ] || die "apt does not know the packages $PACKAGES; run apt-get update" 77
  (cd "$CACHE/debs" && apt-get download $wanted >/dev/null 2>&1) ||
    die "apt-get download failed; run apt-get update, or check the network" 77
  for deb in "$CACHE"/debs/*.deb; do dpkg -x "$deb" "$ROOT"; done
  rm -rf "$CACHE/debs"
  touch "$CACHE/complete"
  exec 9>&-
}

free_port() {
  # Two in a row: the gateway's, and above it the monitor's. Not of the range from which outgoing
  # connections take theirs: one could lie there when a crashed server starts again.
  python3 - <<'PY'
import random, socket
low = int(open("/proc/sys/net/ipv4/ip_local_port_range").read().split()[0])
while True:
    port = random.randrange(10000, low - 1) if low > 20000 else random.randrange(1024, 65534)
    a, b = socket.socket(), socket.socket()
    try:
        a.bind(("127.0.0.1", port))
        b.bind(("127.0.0.1", port + 1))
    except OSError:
        continue
    print(port)
    break
PY
}

stop() {
  local dir="$1" name pid
  for name in rgw osd mon; do
    [ -s "$dir/$name.pid" ] && kill "$(cat "$dir/$name.pid")" 2>/dev/null || :
  done
  for name in rgw osd mon; do
    [ -s "$dir/$name.pid" ] || continue
    pid=$(cat "$dir/$name.pid")
    for _ in $(seq 30); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || :
    rm -f "$dir/$name.pid"
  done
}

write_config() {
  local dir="$1" port="$2" store="$3" lib="$4"
  cat >"$dir/ceph.conf" <<CONF
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
keyring = $dir/keyring
mon host = v2:127.0.0.1:$((port + 1))
public addr = 127.0.0.1
cluster addr = 127.0.0.1
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
osd crush chooseleaf type = 0
osd pool default pg num = 4
osd pool default pg autoscale mode = off
mon max pg per osd = 1000
# No block device, no privileges: objects live in memory, or in a sparse file.
osd objectstore = $store
memstore device bytes = 8589934592
bluestore block size = 8589934592
bluestore cache size = 134217728
# After a crash nobody waits long for watches of the dead. Read leases stay at their default: with short
# ones a placement group that a busy machine starved for a second stopped answering for ever.
paxos propose interval = 0.1
osd client watch timeout = 3
mon data = $dir/mon
osd data = $dir/osd
run dir = $dir/run
admin socket = $dir/run/\$name.\$pid.asok
log file = $dir/log/\$name.log
plugin dir = $lib/ceph
erasure code dir = $lib/ceph/erasure-code
osd class dir = $lib/rados-classes
[client.rgw]
# Without tcp_nodelay every small GET waits 40 ms for a delayed acknowledgement.
rgw frontends = beast endpoint=127.0.0.1:$port tcp_nodelay=1
rgw dns name = localhost
rgw data = $dir/rgw
CONF
}

make_keys() {
  local dir="$1" port="$2" name
  ceph-authtool --create-keyring "$dir/keyring" --gen-key -n mon. --cap mon 'allow *'
  for name in client.admin client.rgw osd.0; do
    ceph-authtool "$dir/keyring" --gen-key -n "$name" \
      --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
  done
  monmaptool --create --addv a "[v2:127.0.0.1:$((port + 1))]" \
    --fsid "$(awk '/^fsid/{print $3}' "$dir/ceph.conf")" "$dir/monmap"
  ceph-mon -c "$dir/ceph.conf" --mkfs -i a --monmap "$dir/monmap" --keyring "$dir/keyring"
}

# Sets lib, the folder of Ceph's libraries, and the environment that its programs need.
use_packages() {
  local multiarch
  multiarch=$(cd "$ROOT/usr/lib" && echo *-linux-gnu)
  lib="$ROOT/usr/lib/$multiarch"
  export LD_LIBRARY_PATH="$lib:$lib/ceph:$ROOT/lib/$multiarch:$ROOT/usr/lib"
  export PATH="$ROOT/usr/bin:$PATH" PYTHONPATH="$ROOT/usr/lib/python3/dist-packages"
}

run_mon() {
  setsid ceph-mon -c "$1/ceph.conf" -i a -f </dev/null >>"$1/log/mon.out" 2>&1 &
  echo $! >"$1/mon.pid"
}

# An empty PUT to a path of the server, signed, in SECONDS at most. The hash is that of no bytes;
# curl signs it only when it is given as a header.
put_nothing() {
  curl -fs --max-time "$3" --noproxy '*' -o /dev/null -X PUT --user "$ACCESS_KEY:$SECRET_KEY" \
    --aws-sigv4 aws:amz:us-east-1:s3 \
    -H content-length:0 \
    -H x-amz-content-sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 \
    "http://127.0.0.1:$1/$2"
}

# Objects enough that each placement group gets some: one that is stuck holds up its own alone.
put_everywhere() {
  local i tries
  for i in $(seq 16); do
    for tries in 1 2 3; do put_nothing "$1" "$BUCKET/is-it-up-$i" 5 && break; done || return 1
  done
}

# The rest, until the gateway answers, for SECONDS at most; fails then.
run_osd_and_rgw() {
  local dir="$1" seconds="$2" port end
  port=$(cat "$dir/port")
  setsid ceph-osd -c "$dir/ceph.conf" -i 0 -f </dev/null >>"$dir/log/osd.out" 2>&1 &
  echo $! >"$dir/osd.pid"
  setsid radosgw -c "$dir/ceph.conf" -n client.rgw -f </dev/null >>"$dir/log/rgw.out" 2>&1 &
  echo $! >"$dir/rgw.pid"
  end=$((SECONDS + seconds))
  while [ $SECONDS -lt $end ]; do
    # Until its store is there, the gateway accepts connections and says nothing.
    curl -fs --max-time 2 --noproxy '*' -o /dev/null "http://127.0.0.1:$port/" && return
    kill -0 "$(cat "$dir/rgw.pid")" 2>/dev/null || break
    sleep 0.25
  done
  return 1
}

crash() {
  local dir="$1" name
  for name in rgw osd mon; do
    [ -s "$dir/$name.pid" ] || die "no server in $dir"
    kill -9 "$(cat "$dir/$name.pid")" 2>/dev/null || :
  done
  for name in rgw osd mon; do
    for _ in $(seq 100); do
      case "$(ps -o stat= -p "$(cat "$dir/$name.pid")" 2>/dev/null)" in ''|Z*) break ;; esac
      sleep 0.05
    done
  done
}

restart() {
  local dir lib
  dir=$(cd "$1" && pwd)
  [ -s "$dir/port" ] || die "no server in $dir"
  use_packages
  # The gateway may answer before objects can be written, and an OSD that comes up while the monitor
  # still knows the dead one can wait for ever (seen thrice in some hundred crashes); what helps is
  # what an operator would do.
  for _ in 1 2 3; do
    run_mon "$dir"
    if run_osd_and_rgw "$dir" 30 && put_everywhere "$(cat "$dir/port")"; then return; fi
    crash "$dir"
  done
  die "objects cannot be written after the restart; see $dir/log"
}

start() {
  local store="$1" dir="$2" port="${3:-}" lib conf setup uuid
  fetch
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  stop "$dir"
  rm -rf "$dir"/{mon,osd,log,run,rgw,keyring,monmap,ceph.conf}
  mkdir -p "$dir"/{mon,osd,log,run,rgw}
  [ -n "$port" ] || port=$(free_port)
  echo "$port" >"$dir/port"
  conf="$dir/ceph.conf" setup="$dir/log/setup.log"
  use_packages
  write_config "$dir" "$port" "$store" "$lib"
  # In a subshell of its own: "set -e" does not hold inside a condition.
  (set -e; make_keys "$dir" "$port") >"$setup" 2>&1 &
  wait $! || die "Ceph's tools do not run here; see $setup" 77

  run_mon "$dir"
  uuid=$(cat /proc/sys/kernel/random/uuid)
  # This client waits for the monitor by itself.
  /usr/bin/python3 "$ROOT/usr/bin/ceph" --connect-timeout 60 -c "$conf" osd new "$uuid" \
    >>"$setup" 2>&1 || { stop "$dir"; die "the monitor did not start; see $dir/log"; }
  ceph-osd -c "$conf" -i 0 --mkfs --osd-uuid "$uuid" >>"$setup" 2>&1
  run_osd_and_rgw "$dir" 60 || { stop "$dir"; die "radosgw does not answer; see $dir/log"; }
  radosgw-admin -c "$conf" -n client.rgw user create --uid=test --display-name=test \
    --access-key=$ACCESS_KEY --secret-key=$SECRET_KEY >>"$setup" 2>&1 ||
    { stop "$dir"; die "cannot create the user; see $dir/log"; }
  put_nothing "$port" "$BUCKET" 60 || { stop "$dir"; die "cannot create the bucket $BUCKET"; }
  echo "AWS_ENDPOINT_URL=http://127.0.0.1:$port"
  echo "AWS_ACCESS_KEY_ID=$ACCESS_KEY"
  echo "AWS_SECRET_ACCESS_KEY=$SECRET_KEY"
  echo "AWS_REGION=us-east-1"
}

user() {
  local dir lib
  dir=$(cd "$1" && pwd)
  [ -s "$dir/port" ] || die "no server in $dir"
  use_packages
  radosgw-admin -c "$dir/ceph.conf" -n client.rgw user create "--uid=$2" "--display-name=$2" \
    "--access-key=AK$2" "--secret-key=SK$2" >>"$dir/log/setup.log" 2>&1 ||
    die "cannot create the user; see $dir/log/setup.log"
}

usage() {
  die "usage: s3-server.sh start DIR [PORT] | start-durable DIR [PORT] | crash DIR | restart DIR | user DIR NAME | stop DIR | fetch"
}

case "${1:-}" in
  fetch) fetch; exit ;;
esac
[ -n "${2:-}" ] || usage
case "$1" in
  start) start memstore "$2" "${3:-}" ;;
  start-durable) start bluestore "$2" "${3:-}" ;;
  crash | restart | stop) "$1" "$2" ;;
  user) user "$2" "${3:?a NAME}" ;;
  *) usage ;;
esac
