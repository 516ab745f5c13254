#!/usr/bin/env bash
# Builds and runs tests under sanitizers: `scripts/check_sanitizers.sh asan|tsan [TARGET...]`.
# tsan's default targets use no gRPC: its library hands calls over by atomics that the sanitizer does
# not see, so everything that crosses a call is reported (absl::Mutex is seen: tests/support/tsan_abseil.cc).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
preset=${1:-}; shift || true
targets=("$@")
case $preset in
  asan) [ ${#targets[@]} -gt 0 ] || targets=(
          base_test object_store_test s3_test safetensors_test spec_test artifact_test mutation_test
          uniquanf_ops_test uniquanf_block_test uniquanf_model_test quantizer_test reconstruct_test task_test
          e2e_batch_test server_core_test server_runtime_test server_service_test client_test cli_test
          worker_agent_agent_test worker_agent_lease_table_test core_simulation_test) ;;
  tsan) [ ${#targets[@]} -gt 0 ] || targets=(
          base_test s3_test server_core_test server_runtime_test uniquanf_ops_test) ;;
  *) die "usage: $0 asan|tsan [TARGET...]" ;;
esac
build "$preset" "${targets[@]}"
export TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1:suppressions=$PWD/tests/support/tsan_suppressions.txt"
failed=()
for target in "${targets[@]}"; do
  say "$target ($preset)"
  "build-$preset/bin/$target" --gtest_brief=1 || failed+=("$target")
done
[ ${#failed[@]} = 0 ] || die "failed under $preset: ${failed[*]}"
say "$preset: ok"
