// A small model, tokens and an environment to run tasks in.
#ifndef UNIQUANF_TESTS_UNIT_WORKER_TASK_TASK_FIXTURE_H_
#define UNIQUANF_TESTS_UNIT_WORKER_TASK_TASK_FIXTURE_H_

#include <memory>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "tests/support/model_fixture.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "worker/task/task_runner.h"

namespace uniquanf {

class TaskTest : public ::testing::Test {
 protected:
  TaskTest() {
    spec_.model_uri = dir_.path() + "/model";
    spec_.calibration_uri = dir_.path() + "/calib.safetensors";
    spec_.output_uri = dir_.path() + "/out";
    spec_.bits = 3;
    spec_.num_samples = 4;
    spec_.sequence_length = 32;
    spec_.epochs = 2;
    spec_.evaluation_window = 32;
    spec_.evaluation_max_windows = 2;
    WriteTokenFile(spec_.calibration_uri, {{"input_ids", RandomTokens({4, 32}, 128, 1)}});
    env_.backend = backend_.get();
    env_.clock = &SystemClock();
    env_.cache = cache_.get();
    env_.work = *OpenObjectStore(dir_.path() + "/work");
  }

  // Runs a whole job and returns the manifest's digest.
  absl::StatusOr<FinalizeOutcome> RunJob() {
    UQ_ASSIGN_OR_RETURN(const PrepareOutcome prepared, RunPrepare(spec_, env_));
    std::vector<std::string> results;
    for (int layer = 0; layer < prepared.num_layers; ++layer) {
      UQ_ASSIGN_OR_RETURN(const LayerOutcome outcome,
                          RunLayer(spec_, prepared.plan_sha256, layer, results, env_));
      results.push_back(outcome.result_sha256);
    }
    return RunFinalize(spec_, prepared.plan_sha256, results, env_);
  }

  TempDir dir_;
  FixtureModel model_ = FixtureModel::Make("llama", 7);
  QuantizationSpec spec_;
  std::unique_ptr<Backend> backend_ = NewCpuBackend({.num_threads = 2});
  std::unique_ptr<ActivationCache> cache_ = NewActivationCache();
  TaskEnvironment env_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_UNIT_WORKER_TASK_TASK_FIXTURE_H_
