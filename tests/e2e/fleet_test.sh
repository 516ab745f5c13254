#!/usr/bin/env bash
# Runs the commands of README.md's "From one machine to a fleet" as written, in a temporary directory and on free
# ports:  fleet_test.sh SOURCE_DIR BINARY_DIR
# Exit status 77: PostgreSQL or the S3 server cannot run here.
set -euo pipefail
source_dir=$1 binary_dir=$2
dir=$(mktemp -d /tmp/uniquanf-fleet-XXXXXX)

clean_up() {
  local status=$?
  cd "$dir"
  kill -9 $(cat run/*.pid 2>/dev/null) 2>/dev/null || :
  scripts/s3-server.sh stop run/s3 2>/dev/null || :
  scripts/postgres-server.sh stop run/postgres 2>/dev/null || :
  if [ $status != 0 ]; then tail -n 20 run/*.log 2>/dev/null || :; fi
  cd / && rm -rf "$dir"
  exit $status
}
trap clean_up EXIT

cd "$dir"
ln -s "$source_dir/scripts" "$source_dir/examples" .
ln -s "$binary_dir" build
ports=$(python3 -c '
import socket
held = [socket.socket(), socket.socket()]
for s in held: s.bind(("127.0.0.1", 0))
print(*[s.getsockname()[1] for s in held])')
awk '/^## /{on = /From one machine to a fleet/} on && /^    /{print substr($0, 5)}' "$source_dir/README.md" |
  sed "s/50051/${ports% *}/g; s/50052/${ports#* }/g" >commands.sh
grep -q uniquanf-server commands.sh || { echo "README.md has no commands in that section"; exit 1; }

bash -euxo pipefail commands.sh >output.txt 2>&1 || {
  status=$?
  cat output.txt
  exit $status
}
cat output.txt

# The same job by the batch program, on one machine, has the same bytes.
build/bin/uniquanf-batch quantize --bits 3 --input-prob 0 --model examples/tiny \
  --calibration examples/tokens/tiny_calib.safetensors --num-samples 16 --sequence-length 256 --epochs 5 \
  --output run/reference >/dev/null
expected=$(sha256sum run/reference/manifest.json | cut -d' ' -f1)
grep -q "$expected" output.txt || { echo "the manifest's digest is not $expected as on one machine"; exit 1; }
