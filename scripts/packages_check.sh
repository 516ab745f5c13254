#!/usr/bin/env bash
# Tries the Debian packages in a bare Debian 12 root, as a new user would: installs them, checks their units, starts what the units
# start as the user that they name, submits jobs with the command line client and from Python, and removes everything.
#   scripts/packages_check.sh [BUILD_DIR]      needs root and debootstrap; ends with 77 where one is missing
# The root is kept in .cache/packages_root between runs; ROOT_DIR names another place.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

build=$(realpath "${1:-build}")
[ "$(id -u)" = 0 ] && command -v debootstrap >/dev/null || { echo "needs root and debootstrap"; exit 77; }
ls "$build"/packages/*.deb >/dev/null || die "build the packages first: scripts/packages.sh $build"
root=${ROOT_DIR:-$PWD/.cache/packages_root}

mirror=$(sed -n 's/^URIs: //p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\) .*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -1 || true)
if [ ! -e "$root/.made" ]; then
  say "a bare Debian 12 in $root"
  rm -rf "$root"
  mkdir -p "$root"
  debootstrap --variant=minbase bookworm "$root" "${mirror:?no Debian mirror is configured in /etc/apt}" >"$root.log" 2>&1 ||
    { tail -5 "$root.log" >&2; echo "debootstrap does not work here"; exit 77; }
  touch "$root/.made"
fi
names="uniquanf-server uniquanf-worker uniquanf-client uniquanf-batch python3-uniquanf"
in_root() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@"; }
pids=()
cleanup() {
  [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  for place in srv/examples dev proc; do umount -l "$root/$place" 2>/dev/null || true; done
}
trap cleanup EXIT
for place in dev proc; do mount --bind "/$place" "$root/$place"; done
echo 'Dpkg::Use-Pty "0";' >"$root/etc/apt/apt.conf.d/no-pty"
cp /etc/resolv.conf "$root/etc/resolv.conf"
mkdir -p "$root/srv/examples" "$root/tmp/packages"
mount --bind examples "$root/srv/examples"
cp "$build"/packages/*.deb "$root/tmp/packages/"

say "installing"
in_root apt-get update -qq
in_root sh -c 'apt-get install -y -qq --no-install-recommends systemd man-db /tmp/packages/*.deb >/tmp/install.log 2>&1 || { tail -20 /tmp/install.log; exit 1; }'
in_root getent passwd uniquanf
for program in uniquanf uniquanf-server uniquanf-worker uniquanf-batch; do in_root "$program" --version; done
in_root man -w uniquanf-submit uniquanf-server >/dev/null

say "units"
for unit in uniquanf-server uniquanf-worker; do
  in_root systemd-analyze verify "/lib/systemd/system/$unit.service"
  in_root systemd-analyze security --offline=yes --threshold=20 "/lib/systemd/system/$unit.service" | tail -1
done

# What the unit would start, as the user, in the folder and with the environment that it names.
start_unit() {
  local unit=$root/lib/systemd/system/$1.service env
  env=$(sed -n 's/^EnvironmentFile=-//p' "$unit")
  mkdir -p "$root/var/lib/uniquanf" && chroot "$root" chown uniquanf:uniquanf /var/lib/uniquanf && chmod 0750 "$root/var/lib/uniquanf"
  # No function here: $! must be the program's own number.
  chroot "$root" setpriv --reuid uniquanf --regid uniquanf --init-groups env -i PATH=/usr/bin:/bin sh -c "umask 0027; cd /var/lib/uniquanf
    set -a; [ ! -e $env ] || . $env; set +a; exec $(sed -n 's/^ExecStart=//p' "$unit")" >"$root/tmp/$1.log" 2>&1 &
  pids+=($!)
}
say "services and jobs"
start_unit uniquanf-server
for _ in $(seq 50); do ! in_root uniquanf health >/dev/null 2>&1 || break; sleep 0.2; done
start_unit uniquanf-worker
in_root uniquanf submit --model /srv/examples/tiny --calibration /srv/examples/tokens/tiny_calib.safetensors --bits 3 --num-samples 4 \
  --sequence-length 128 --epochs 4 --job-id cli
in_root uniquanf wait cli --within 2m || { in_root uniquanf describe cli; die "the job failed"; }
in_root python3 - <<'PYTHON'
import uniquanf
with uniquanf.Client() as client:
    job = client.submit(model_uri="/srv/examples/tiny", calibration_uri="/srv/examples/tokens/tiny_calib.safetensors", bits=3,
                        num_samples=4, sequence_length=128, epochs=4, job_id="python")
    job = client.wait(job.name, timeout=120)
    print(job.name, job.state, client.download(job, "/root/python-3bit"))
PYTHON
in_root uniquanf-batch verify /root/python-3bit
in_root uniquanf list
kill "${pids[@]}"; wait "${pids[@]}" 2>/dev/null || true
pids=()

say "removing"
in_root sh -c "apt-get remove -y -qq $names >/dev/null"
in_root test -e /var/lib/uniquanf/server/state.sqlite -a -e /etc/uniquanf/server.env || die "removing took data or configuration"
in_root getent passwd uniquanf >/dev/null || die "removing took the user, whose files are there"
in_root sh -c "dpkg --purge $names >/dev/null 2>&1"
in_root test ! -e /etc/uniquanf || die "purging left the configuration"
in_root test -e /var/lib/uniquanf/server/state.sqlite || die "purging took the data"
in_root getent passwd uniquanf >/dev/null || die "the user is gone, whose files are there"
say "without data the user goes with the last package"
in_root sh -c 'rm -rf /var/lib/uniquanf && apt-get install -y -qq --no-install-recommends /tmp/packages/*.deb >/tmp/install.log 2>&1'
in_root sh -c "dpkg --purge $names >/dev/null 2>&1"
! in_root getent passwd uniquanf >/dev/null || die "the user stayed without anything to own"
in_root test ! -e /usr/lib/python3/dist-packages/uniquanf || die "files of the Python package stayed"
say "the packages are good"
