#!/usr/bin/env bash
# From a fresh clone to a quantized model: installs what is missing, builds, starts a server and a worker
# on this machine, submits the example model at 3 bits and shows its progress and report.
# Nothing is left running. Results lie in run/ (removed and made anew at every start).
#   scripts/quickstart.sh --installed     with the programs of the Debian packages instead: nothing is built
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if [ "${1:-}" = --installed ]; then
  bin=$(dirname "$(command -v uniquanf-server || die "uniquanf-server is not installed: apt install ./build/packages/uniquanf-*.deb")")
else
  scripts/install_dependencies.sh
  build dev uniquanf-server uniquanf-worker uniquanf-cli uniquanf-batch
  bin=$PWD/build/bin
fi
run=$PWD/run
rm -rf "$run"
mkdir -p "$run"

pids=()
stop() {
  [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
}
trap stop EXIT
trap 'exit 130' INT TERM

wait_for_file() {  # FILE PID LOG WHAT
  for _ in $(seq 300); do
    [ -s "$1" ] && return 0
    kill -0 "$2" 2>/dev/null || { tail -5 "$3" >&2; die "the $4 did not start; its log is $3"; }
    sleep 0.1
  done
  die "the $4 is not ready after 30 s; its log is $3"
}

say "starting the server (SQLite state and local objects in run/server)"
"$bin/uniquanf-server" --listen=127.0.0.1:0 --data-dir="$run/server" --ready-file="$run/server.address" \
  >"$run/server.log" 2>&1 &
pids+=($!)
wait_for_file "$run/server.address" $! "$run/server.log" server
export UNIQUANF_SERVER
UNIQUANF_SERVER=$(cat "$run/server.address")
echo "    listening on $UNIQUANF_SERVER"

say "starting a worker"
"$bin/uniquanf-worker" --server="$UNIQUANF_SERVER" --name=quickstart --ready-file="$run/worker.ready" \
  >"$run/worker.log" 2>&1 &
pids+=($!)
wait_for_file "$run/worker.ready" $! "$run/worker.log" worker

say "submitting examples/tiny at 3 bits"
"$bin/uniquanf" submit --watch --job-id=quickstart \
  --model=examples/tiny --calibration=examples/tokens/tiny_calib.safetensors \
  --num-samples=64 --sequence-length=512 --epochs=5 --bits=3 \
  --evaluation=examples/tokens/tiny_eval.safetensors --evaluation-max-windows=200 \
  --output="$run/tiny-3bit"

say "checking the artifact"
"$bin/uniquanf-batch" verify "$run/tiny-3bit"

cat <<END

The artifact is in      run/tiny-3bit   (report: run/tiny-3bit/report.html)
Look into it            $bin/uniquanf-batch inspect run/tiny-3bit
Use it elsewhere        $bin/uniquanf-batch export run/tiny-3bit --output run/tiny-bf16
END
