#!/usr/bin/env bash
# Builds the images from the Dockerfiles as they are, with the programs that lie in build/bin in the place of the stage
# "build", twice (the digests must be the same), looks into them, and runs a job in their containers: server, proxy, worker and
# client with a root that cannot be written, no capabilities and uid 65532. Needs root on Debian 12 and installs what is
# missing. Exits with 77 where the machine cannot do it, and says why.
#
# `--reuse-base` takes the base image of an earlier run from .cache/images.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

skip() { printf 'SKIPPED: %s\n' "$*"; exit 77; }
started=$SECONDS

[ "$(id -u)" = 0 ] || skip "building images with buildah's chroot isolation needs root"
[ -r /etc/debian_version ] || skip "the tools are installed with apt, on Debian 12"
build dev uniquanf-server uniquanf-worker uniquanf-cli uniquanf-batch
missing=()
for package in buildah podman runc debootstrap jq file python3; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} != 0 ]; then
  say "installing ${missing[*]}"
  apt-get update -qq || true
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    skip "cannot install ${missing[*]} with apt"
fi

work=$(mktemp -d /var/tmp/uniquanf-images.XXXXXX)
stores=()
podman_of() { podman --root "$1/root" --runroot "$1/run" --storage-driver overlay --runtime runc --cgroup-manager cgroupfs --events-backend none "${@:2}"; }
clean_up() {
  for store in "${stores[@]}"; do
    podman_of "$store" rm --all --force --time 5 >/dev/null 2>&1 || true
    umount -R "$store/root/overlay" 2>/dev/null || umount -R -l "$store/root/overlay" 2>/dev/null || true
  done
  rm -rf "$work" || true
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# An overlay needs a directory that is none itself; a tmpfs is one wherever mounting is allowed at all.
mkdir "$work/probe" && mkdir "$work/probe"/{lower,upper,work,merged}
if mount -t overlay overlay -o "lowerdir=$work/probe/lower,upperdir=$work/probe/upper,workdir=$work/probe/work" "$work/probe/merged" 2>/dev/null; then
  umount "$work/probe/merged"
else
  skip "this machine allows no overlay mounts (a container without CAP_SYS_ADMIN?), which buildah needs"
fi

# ---- The base image: debootstrap from the machine's own mirror.
mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 2>/dev/null |
  awk '$2 == "bookworm" && $3 == "main" {print $1; exit}')
[ -n "$mirror" ] || skip "apt knows no mirror of bookworm"
base=.cache/images/base.tar
if [ "${1:-}" != --reuse-base ] || [ ! -s "$base" ]; then
  say "making the base image from $mirror"
  mkdir -p .cache/images
  debootstrap --variant=minbase bookworm "$work/base" "$mirror" >"$work/debootstrap.log" 2>&1 || {
    tail -5 "$work/debootstrap.log"
    skip "debootstrap cannot make a base image from $mirror here"
  }
  # The machine's own apt settings (proxies, mirrors) hold in the image while it is built.
  cp -r /etc/apt/apt.conf.d "$work/base/etc/apt/"
  rm -rf "$work"/base/usr/share/{doc,man,info,locale}/* "$work"/base/var/cache/apt/archives/*.deb "$work"/base/var/lib/apt/lists/*
  tar -C "$work/base" --sort=name -c . >"$base"
  rm -rf "$work/base"
fi

# ---- The programs, stripped as in the stage "build".
mkdir -p "$work/context/src/build/bin"
cp build/bin/uniquanf{,-server,-worker,-batch} "$work/context/src/build/bin/"
docker/split_symbols.sh "$work/context/src/build/bin" "$work/context/src/build/debug"

targets=(server worker client batch proxy)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
# In OCI's format: Docker's has the random ids of the containers that steps ran in.
build_images() {  # STORE
  local store=$1 target
  stores+=("$store")
  podman_of "$store" import --change 'CMD ["bash"]' "$base" localhost/debian:12-slim >/dev/null
  for target in "${targets[@]}"; do
    buildah --root "$store/root" --runroot "$store/run" --storage-driver overlay bud --isolation chroot --pull-never --layers \
      --format oci --timestamp 0 --target "$target" --build-arg DEBIAN=localhost/debian:12-slim \
      --build-arg REVISION="$revision" --build-context build="$work/context" \
      -f docker/Dockerfile -t "localhost/uniquanf-$target" . >"$store.$target.log" 2>&1 || {
        tail -20 "$store.$target.log"
        die "image $target cannot be built"
      }
  done
}
digest_of() { podman_of "$1" image inspect --format '{{.Digest}}' "localhost/uniquanf-$2"; }

say "building the images ($((SECONDS - started)) s so far)"
first=$work/first second=$work/second
build_images "$first"
say "building them again ($((SECONDS - started)) s so far)"
build_images "$second"

# ---- What is in them.
say "looking into the images ($((SECONDS - started)) s so far)"
declare -A most=([server]=130 [worker]=190 [client]=130 [batch]=190 [proxy]=130)
declare -A sbom=([server]=uniquanf-server [worker]=uniquanf-worker [client]=uniquanf [batch]=uniquanf-worker [proxy]=uniquanf-proxy)
for target in "${targets[@]}"; do
  image=localhost/uniquanf-$target
  digest=$(digest_of "$first" "$target")
  [ "$digest" = "$(digest_of "$second" "$target")" ] || die "two builds of $target differ: $digest and $(digest_of "$second" "$target")"
  mib=$(( $(podman_of "$first" image inspect --format '{{.Size}}' "$image") / 1000000 ))
  echo "    $target: $mib MB, $digest"
  [ "$mib" -lt "${most[$target]}" ] || die "image $target has $mib MB, at most ${most[$target]} are allowed"
  podman_of "$first" image inspect "$image" | jq -e '.[0].Config | .User == "65532:65532"
    and (.Labels["org.opencontainers.image.title"] | startswith("uniquanf"))
    and ([.Labels["org.opencontainers.image"+("version","revision","source","licenses" | "."+.)]] | all(. != null and . != ""))
    and (.Env | index("HOME=/var/lib/uniquanf"))' >/dev/null || die "image $target lacks its user, HOME or labels"
  root=$(podman_of "$first" image mount "$image")
  [ -z "$(find "$root" -xdev -perm /6000 -type f)" ] || die "image $target has setuid programs: $(find "$root" -xdev -perm /6000 -type f)"
  [ -z "$(find "$root" -xdev -name 'libopenblas*')" ] || [[ $target = worker || $target = batch ]] || die "image $target holds OpenBLAS"
  grep -q '^uniquanf:x:65532:65532:' "$root/etc/passwd" || die "image $target has no passwd entry of 65532"
  for unwanted in usr/bin/apt-get usr/bin/dpkg usr/bin/perl usr/bin/su usr/bin/mount; do
    [ ! -e "$root/$unwanted" ] || die "image $target holds /$unwanted"
  done
  jq -e '.spdxVersion == "SPDX-2.3" and (.packages | length > 20) and any(.packages[]; .name == "libc6")
    and (.packages | length) == (.relationships | length)' "$root/usr/share/sbom/${sbom[$target]}.spdx.json" >/dev/null ||
    die "image $target has no good list of packages"
  podman_of "$first" image unmount "$image" >/dev/null
done
# What a target's HEALTHCHECK runs, one argument a line. OCI's format has no place for it; Docker's own builds keep it.
health_command() { awk -v target="$1" '$1 == "FROM" {in_target = $4 == target} in_target && $1 == "CMD" {print; exit}' docker/Dockerfile |
  sed 's/^ *CMD //' | jq -r '.[]'; }
for target in server worker; do
  [ "$(health_command $target | head -1)" = "uniquanf-$target" ] || die "image $target has no health check"
done

# ---- A job.
say "running a job in the containers ($((SECONDS - started)) s so far)"
shared=$work/shared
mkdir -p "$shared/data" "$shared/etc"
cp -r examples/tiny "$shared/model"
cp examples/tokens/tiny_{calib,eval}.safetensors "$shared/"
cat >"$shared/etc/haproxy.cfg" <<'END'
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout check 5s
frontend grpc
  bind :50052
  default_backend active
backend active
  option httpchk GET /readyz
  server one 127.0.0.1:50051 check port 9090 inter 500ms fall 4
END
chown -R 65532:65532 "$shared"
# podman raises limits that a container without CAP_SYS_RESOURCE may not raise: name them.
hard=(--no-healthcheck --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 --read-only --cap-drop ALL --security-opt no-new-privileges
  --tmpfs /tmp -v "$shared:/shared")
pod() { podman_of "$first" "$@"; }
pod run -d --name uqs --network none "${hard[@]}" -v "$shared/data:/var/lib/uniquanf" localhost/uniquanf-server \
  --listen=127.0.0.1:50051 --data-dir=/var/lib/uniquanf --metrics-listen=0.0.0.0:9090 --object-root=file:///shared/objects \
  --log-format=json >/dev/null || die "the server's container does not start"
beside=(--network container:uqs "${hard[@]}")
pod run -d --name uqp "${beside[@]}" localhost/uniquanf-proxy -db -f /shared/etc/haproxy.cfg >/dev/null
pod run -d --name uqw "${beside[@]}" localhost/uniquanf-worker --server=127.0.0.1:50052 --device=cpu --threads=1 \
  --metrics-listen=0.0.0.0:9091 --drain-timeout=10m --log-format=json >/dev/null
client() { pod run --rm "${beside[@]}" "$@"; }
for _ in $(seq 60); do client localhost/uniquanf-client info --server=127.0.0.1:50052 >/dev/null 2>&1 && break; sleep 0.5; done
client localhost/uniquanf-client submit --server=127.0.0.1:50052 --watch --job-id=images --bits=3 --model=file:///shared/model \
  --calibration=file:///shared/tiny_calib.safetensors --num-samples=16 --sequence-length=128 --epochs=1 \
  --output=file:///shared/model-3bit >"$work/submit.log" 2>&1 || {
    tail -20 "$work/submit.log"; pod logs uqs 2>&1 | tail -5; pod logs uqw 2>&1 | tail -5
    die "the job did not succeed"
  }
state=$(client localhost/uniquanf-client get images --server=127.0.0.1:50052 --json | jq -r .state)
[ "$state" = SUCCEEDED ] || die "the job's state is $state"
client localhost/uniquanf-batch verify /shared/model-3bit >/dev/null || die "the artifact does not verify"
python3 - "$(pod inspect --format '{{.State.Pid}}' uqs)" >"$work/scrapes" <<'END'
import ctypes, os, sys, urllib.request
os_file = os.open(f"/proc/{sys.argv[1]}/ns/net", os.O_RDONLY)
if ctypes.CDLL(None, use_errno=True).setns(os_file, 0x40000000) != 0:  # CLONE_NEWNET: the containers' network
    raise OSError(ctypes.get_errno(), "setns")
for port in (9090, 9091):
    for path in ("/healthz", "/readyz"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).read()
    print(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode())
END
/usr/bin/python3 -B deploy/tests/metric_names.py --scrape "$work/scrapes"
mapfile -t health < <(health_command server)
pod exec uqs "${health[@]}" || die "the server's health check fails"
mapfile -t health < <(health_command worker)  # whose port is another one here
pod exec uqw "${health[@]/9090/9091}" || die "the worker's health check fails"
pod stop --time 30 uqw >/dev/null
pod stop --time 30 uqs >/dev/null
for name in uqw uqs; do
  code=$(pod inspect --format '{{.State.ExitCode}}' $name)
  [ "$code" = 0 ] || die "container $name ended with $code on SIGTERM"
done
pod logs uqs 2>&1 | jq -e . >/dev/null || die "the server writes lines that are no JSON in spite of --log-format=json"
say "images are good: built twice alike, a job succeeded in them and verifies ($((SECONDS - started)) s)"
