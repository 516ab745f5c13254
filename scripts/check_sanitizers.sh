#!/usr/bin/env bash
# Builds and runs tests under sanitizers: `scripts/check_sanitizers.sh asan|tsan [TARGET...]`; without TARGETs the whole suite.
#
# asan (addresses and undefined behaviour): every test, programs that tests start included. tsan (threads): every test program
# but those that make gRPC calls. Debian's gRPC library hands calls over by atomics that the sanitizer does not see, so everything
# that crosses a call is reported (absl::Mutex is seen: tests/support/tsan_abseil.cc).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
preset=${1:-}; shift || true
targets=("$@")
grpc_calls='rpc_test|client_test|cli_test|download_test|server_service_test|worker_agent_.*_test|client_server_test|e2e_.*|process_fault_test|s3_fault_test|fault_proxy_test|install_test'
case $preset in
  asan) ;;
  tsan) export TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1:suppressions=$PWD/tests/support/tsan_suppressions.txt" ;;
  *) die "usage: $0 asan|tsan [TARGET...]" ;;
esac
build "$preset" "${targets[@]}"
if [ $preset = asan ] && [ ${#targets[@]} = 0 ]; then
  ctest --preset asan -j "$(nproc)" || die "failed under asan"
  exit 0
fi
if [ ${#targets[@]} = 0 ]; then
  for program in build-tsan/bin/*_test; do
    if [[ ${program##*/} =~ ^($grpc_calls)$ ]]; then echo "left out, makes gRPC calls: ${program##*/}"
    else targets+=("${program##*/}"); fi
  done
fi
failed=()
for target in "${targets[@]}"; do
  say "$target ($preset)"
  started=$SECONDS
  code=0
  "build-$preset/bin/$target" --gtest_brief=1 || code=$?
  [ $code = 0 ] || [ $code = 77 ] || failed+=("$target")
  echo "$target: $((SECONDS - started)) s"
done
[ ${#failed[@]} = 0 ] || die "failed under $preset: ${failed[*]}"
say "$preset: ok"
