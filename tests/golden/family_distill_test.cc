// Distillation of every model family: windows of layers lower the divergence from the original's
// own predictions, and what they store is an artifact that computes what was judged.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "tests/golden/family_folders.h"
#include "tests/support/model_fixture.h"
#include "tests/support/temp_dir.h"
#include "worker/model/checkpoint.h"
#include "worker/task/task_runner.h"

namespace uniquanf::golden {
namespace {

class FamilyDistillTest : public testing::TestWithParam<FamilyCase> {};

TEST_P(FamilyDistillTest, WindowsLowerTheDivergence) {
  const std::unique_ptr<Backend> backend = MakeBackend(GetParam().device);
  ASSERT_NE(backend, nullptr);
  auto store = OpenObjectStore(FolderPath(GetParam().folder));
  ASSERT_TRUE(store.ok()) << store.status();
  auto checkpoint = Checkpoint::Open(*store, /*allow_quantized=*/false);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const ModelConfig& config = (*checkpoint)->config();

  const TempDir dir;
  QuantizationSpec spec;
  spec.model_uri = FolderPath(GetParam().folder);
  spec.calibration_uri = dir.path() + "/calibration.safetensors";
  spec.output_uri = dir.path() + "/out";
  spec.bits = 3;
  spec.epochs = 0;
  spec.num_samples = 8;
  spec.sequence_length = 24;
  spec.distill_window = 2;
  spec.distill_steps = 24;
  spec.distill_batch_size = 2;
  spec.distill_learning_rate = 0.02;
  spec.distill_scale_learning_rate = 0.01;
  WriteTokenFile(spec.calibration_uri,
                 {{"input_ids", RandomTokens({8, 24}, static_cast<int>(config.vocab_size), 3)}});
  TaskEnvironment env;
  env.backend = backend.get();
  env.clock = &SystemClock();
  const std::unique_ptr<ActivationCache> cache = NewActivationCache();
  env.cache = cache.get();
  env.work = *OpenObjectStore(dir.path() + "/work");

  const auto prepared = RunPrepare(spec, env);
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  std::vector<std::string> layers, windows;
  for (int layer = 0; layer < prepared->num_layers; ++layer) {
    const auto outcome = RunLayer(spec, prepared->plan_sha256, layer, layers, env);
    ASSERT_TRUE(outcome.ok()) << outcome.status();
    layers.push_back(outcome->result_sha256);
  }
  double first = 0, last = 0;
  for (int layer = 0; layer < prepared->num_layers; layer += spec.distill_window) {
    std::vector<std::string> inputs = windows;
    inputs.insert(inputs.end(), layers.begin() + layer, layers.end());
    const auto outcome = RunWindow(spec, prepared->plan_sha256, layer, inputs, env);
    ASSERT_TRUE(outcome.ok()) << outcome.status();
    if (windows.empty()) {
      first = outcome->initial_divergence;
    } else {  // it begins where the window before ended
      EXPECT_NEAR(outcome->initial_divergence, last, 1e-6 * (1 + last));
    }
    last = outcome->final_divergence;
    windows.push_back(outcome->result_sha256);
  }
  EXPECT_TRUE(std::isfinite(first));
  EXPECT_LT(last, 0.98 * first);
  RecordProperty("divergence", std::to_string(first) + " " + std::to_string(last));
  const auto outcome = RunFinalize(spec, prepared->plan_sha256, windows, env);
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  auto published = OpenObjectStore(spec.output_uri);
  ASSERT_TRUE(published.ok()) << published.status();
  EXPECT_TRUE(Checkpoint::Open(*published, /*allow_quantized=*/true).ok());
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyDistillTest, testing::ValuesIn(FamilyCases()),
                         [](const testing::TestParamInfo<FamilyCase>& info) {
                           return info.param.folder + "_" + info.param.device;
                         });

}  // namespace
}  // namespace uniquanf::golden
