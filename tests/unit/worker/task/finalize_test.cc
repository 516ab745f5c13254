#include <sys/stat.h>

#include <filesystem>

#include "common/artifact/artifact_reader.h"
#include "tests/unit/worker/task/task_fixture.h"
#include "worker/export/export.h"
#include "worker/model/language_model.h"
#include "worker/task/output.h"
#include "worker/task/tokens.h"

namespace uniquanf {
namespace {

class FinalizeTest : public TaskTest {
 protected:
  FinalizeTest() {
    spec_.evaluation_uri = dir_.path() + "/eval.safetensors";
    WriteTokenFile(spec_.evaluation_uri, {{"valid", RandomTokens({100}, 128, 2)}});
  }
  double PerplexityOf(const std::string& uri) {
    auto checkpoint = Checkpoint::Open(*OpenObjectStore(uri), /*allow_quantized=*/true);
    EXPECT_THAT(checkpoint, IsOk());
    PerplexityOptions options;
    options.window = spec_.evaluation_window;
    options.max_windows = spec_.evaluation_max_windows;
    const auto tokens = ReadEvaluationTokens(spec_.evaluation_uri, "valid", 32, 0, 128);
    return EvaluatePerplexity(backend_.get(), **checkpoint, *tokens, options)->perplexity;
  }
};

TEST_F(FinalizeTest, EveryFamilyGivesAnArtifactThatVerifies) {
  for (const char* family : {"llama", "mistral", "qwen2", "qwen3"}) {
    SCOPED_TRACE(family);
    model_ = FixtureModel::Make(family, 7);
    spec_.model_uri = dir_.path() + "/" + family;
    spec_.output_uri = dir_.path() + "/out-" + family;
    model_.Write(spec_.model_uri);
    const auto outcome = RunJob();
    ASSERT_THAT(outcome, IsOk());
    const auto report = VerifyArtifact(*OpenObjectStore(spec_.output_uri), nullptr);
    ASSERT_THAT(report, IsOk());
    EXPECT_THAT(report->problems, ::testing::IsEmpty());
    EXPECT_DOUBLE_EQ(PerplexityOf(spec_.output_uri), *outcome->report.perplexity_after);
    EXPECT_DOUBLE_EQ(PerplexityOf(spec_.model_uri), *outcome->report.perplexity_before);
  }
}

// R15: an artifact goes to people who need not know where its inputs lay.
TEST_F(FinalizeTest, NoFileOfAnArtifactSaysWhereItsInputsLay) {
  model_.Write(spec_.model_uri);
  ASSERT_THAT(RunJob(), IsOk());
  int num_files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(spec_.output_uri)) {
    if (!entry.is_regular_file()) continue;
    ++num_files;
    EXPECT_THAT(ReadFile(entry.path()), ::testing::Not(::testing::HasSubstr(dir_.path())))
        << entry.path();
  }
  EXPECT_GT(num_files, 5);
  EXPECT_THAT(ReadFile(spec_.output_uri + "/run.json"), ::testing::HasSubstr("\"spec\""));
}

// S-15: the worker's umask is for its working objects.
TEST_F(FinalizeTest, AnArtifactHasTheModeAskedFor) {
  model_.Write(spec_.model_uri);
  env_.artifact_mode = 0750;
  const mode_t before = umask(0077);
  const auto outcome = RunJob();
  umask(before);
  ASSERT_THAT(outcome, IsOk());
  for (const auto& entry : std::filesystem::recursive_directory_iterator(spec_.output_uri)) {
    const auto mode = static_cast<uint32_t>(entry.status().permissions());
    EXPECT_EQ(mode, entry.is_directory() ? 0750u : 0640u) << entry.path();
  }
  EXPECT_EQ(static_cast<uint32_t>(std::filesystem::status(spec_.output_uri).permissions()), 0750u);
}

TEST_F(FinalizeTest, RepeatingItIsHarmless) {
  model_.Write(spec_.model_uri);
  const auto prepared = RunPrepare(spec_, env_);
  ASSERT_THAT(prepared, IsOk());
  std::vector<std::string> results;
  for (int layer = 0; layer < 2; ++layer) {
    results.push_back(RunLayer(spec_, prepared->plan_sha256, layer, results, env_)->result_sha256);
  }
  const auto first = RunFinalize(spec_, prepared->plan_sha256, results, env_);
  ASSERT_THAT(first, IsOk());
  const auto second = RunFinalize(spec_, prepared->plan_sha256, results, env_);
  ASSERT_THAT(second, IsOk());
  EXPECT_EQ(second->artifact.manifest_sha256, first->artifact.manifest_sha256);
  EXPECT_FALSE(std::filesystem::exists(spec_.output_uri + "/" + kOutputMarkerKey));
}

TEST_F(FinalizeTest, ManifestListsEveryLinearLayer) {
  ModuleOverride keep;
  keep.pattern = "*.v_proj";
  keep.full_precision = true;
  spec_.overrides = {keep};
  model_.Write(spec_.model_uri);
  ASSERT_THAT(RunJob(), IsOk());
  const auto manifest = ReadManifest(OpenObjectStore(spec_.output_uri)->get());
  ASSERT_THAT(manifest, IsOk());
  EXPECT_EQ(manifest->modules.size(), 2u * 7 + 1);
  const ManifestModule* v = manifest->FindModule("model.layers.1.self_attn.v_proj");
  ASSERT_NE(v, nullptr);
  EXPECT_FALSE(v->quantized);
  EXPECT_EQ(v->reason, "override *.v_proj");
  EXPECT_EQ(manifest->FindModule("lm_head")->reason, "tied to the embedding");
}

TEST_F(FinalizeTest, CollapseIsFlagged) {
  // Round to nearest at 2 bits with a huge outlier a row leaves nothing of the model.
  for (auto& [name, tensor] : model_.tensors) {
    if (name.find("proj") == std::string::npos) continue;
    for (int64_t row = 0; row < tensor.shape[0]; ++row) {
      tensor.values[row * tensor.shape[1]] = row % 2 == 0 ? 8.0f : -8.0f;
    }
  }
  spec_.method = QuantizationMethod::kRtn;
  spec_.bits = 2;
  model_.Write(spec_.model_uri);
  const auto outcome = RunJob();
  ASSERT_THAT(outcome, IsOk());
  if (*outcome->report.perplexity_after > 3 * *outcome->report.perplexity_before) {
    ASSERT_FALSE(outcome->report.warnings.empty());
    EXPECT_THAT(outcome->report.warnings[0], ::testing::HasSubstr("collapsed"));
  }
}

TEST_F(FinalizeTest, ExportedCheckpointEvaluatesAlike) {
  model_.Write(spec_.model_uri);
  const auto outcome = RunJob();
  ASSERT_THAT(outcome, IsOk());
  const std::string exported = dir_.path() + "/exported";
  ASSERT_THAT(ExportArtifact(*OpenObjectStore(spec_.output_uri), exported, ExportOptions()),
              IsOk());
  EXPECT_NEAR(PerplexityOf(exported), *outcome->report.perplexity_after,
              0.01 * *outcome->report.perplexity_after);
  EXPECT_THAT(ExportArtifact(*OpenObjectStore(spec_.output_uri), exported, ExportOptions()),
              FailsWith(absl::StatusCode::kAlreadyExists, "OUTPUT_EXISTS"));
}

TEST_F(FinalizeTest, CancelBeforePublishingLeavesNoManifest) {
  model_.Write(spec_.model_uri);
  const auto prepared = RunPrepare(spec_, env_);
  ASSERT_THAT(prepared, IsOk());
  std::vector<std::string> results;
  for (int layer = 0; layer < 2; ++layer) {
    results.push_back(RunLayer(spec_, prepared->plan_sha256, layer, results, env_)->result_sha256);
  }
  env_.stop = [] { return true; };
  EXPECT_EQ(RunFinalize(spec_, prepared->plan_sha256, results, env_).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_FALSE(std::filesystem::exists(spec_.output_uri + "/manifest.json"));
}

}  // namespace
}  // namespace uniquanf
