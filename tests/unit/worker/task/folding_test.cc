// Jobs on models with planted outlier channels: folding gives them back what the planting took, and
// leaves other models alone to the byte; the artifact says the function that it was measured with.
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "common/safetensors/float_conversion.h"
#include "tests/support/planted_outliers.h"
#include "tests/unit/worker/task/task_fixture.h"
#include "worker/model/language_model.h"

namespace uniquanf {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

class FoldingTest : public TaskTest {
 protected:
  FoldingTest() {
    spec_.evaluation_uri = dir_.path() + "/eval.safetensors";
    WriteTokenFile(spec_.evaluation_uri, {{"valid", RandomTokens({64}, 128, 2)}});
    spec_.epochs = 3;
  }
  void Plant(const std::string& family, int exponent, bool norms, bool pairs) {
    model_ = FixtureModel::Make(family, 7);
    if (exponent > 0) PlantOutliers(exponent, norms, pairs, 2, 16, 4, 2, &model_);
    spec_.model_uri = absl::StrCat(dir_.path(), "/model", ++num_);
    spec_.output_uri = absl::StrCat(dir_.path(), "/out", num_);
    model_.Write(spec_.model_uri);
  }
  // The last layer's error, and how many channels were folded in all.
  struct Run {
    double error = 0;
    int64_t num_folded = 0;
    FinalizeOutcome outcome;
  };
  Run RunPlanted(bool keep_cache = true) {
    const PrepareOutcome prepared = *RunPrepare(spec_, env_);
    Run run;
    std::vector<std::string> results;
    for (int layer = 0; layer < prepared.num_layers; ++layer) {
      if (!keep_cache) cache_->Clear();
      const absl::StatusOr<LayerOutcome> outcome =
          RunLayer(spec_, prepared.plan_sha256, layer, results, env_);
      EXPECT_OK(outcome);
      results.push_back(outcome->result_sha256);
      run.error = outcome->final_loss;
      run.num_folded += outcome->num_folded;
    }
    run.outcome = *RunFinalize(spec_, prepared.plan_sha256, results, env_);
    return run;
  }

  int num_ = 0;
};

TEST_F(FoldingTest, OutliersCostNothing) {
  for (const char* family : {"llama", "qwen2"}) {
    Plant(family, 0, false, false);
    const Run plain = RunPlanted();
    EXPECT_EQ(plain.num_folded, 0);
    for (const auto& [norms, pairs] : {std::pair{true, false}, {false, true}, {true, true}}) {
      SCOPED_TRACE(absl::StrCat(family, norms, pairs));
      Plant(family, 7, norms, pairs);
      spec_.folding = Folding::kAuto;
      const Run folded = RunPlanted();
      EXPECT_GT(folded.num_folded, 0);
      spec_.folding = Folding::kOff;
      spec_.output_uri += "off";
      const Run off = RunPlanted();
      EXPECT_EQ(off.num_folded, 0);
      spec_.folding = Folding::kAuto;
      EXPECT_LT(folded.error, 1.3 * plain.error);
      EXPECT_LT(folded.error, 0.8 * off.error);
      // The original's function was not touched.
      EXPECT_NEAR(*folded.outcome.report.perplexity_before, *off.outcome.report.perplexity_before,
                  1e-3);
    }
  }
}

TEST_F(FoldingTest, SmallAndLargeOutliersCostNothingEither) {
  for (const int bits : {4, 3, 2}) {
    spec_.bits = bits;
    Plant("llama", 0, false, false);
    const double plain = RunPlanted().error;
    for (const int exponent : {4, 10}) {
      SCOPED_TRACE(absl::StrCat(bits, " bits, outliers of 2^", exponent));
      Plant("llama", exponent, true, true);
      const Run folded = RunPlanted();
      EXPECT_GT(folded.num_folded, 0);
      EXPECT_LT(folded.error, 1.3 * plain);
    }
  }
}

TEST_F(FoldingTest, StoredLayersAreReadWithTheirNorms) {
  Plant("llama", 7, true, true);
  const Run kept = RunPlanted();
  spec_.output_uri += "again";
  const Run recomputed = RunPlanted(/*keep_cache=*/false);
  EXPECT_EQ(kept.outcome.artifact.manifest_sha256, recomputed.outcome.artifact.manifest_sha256);
  // What was measured is what a reader of the artifact computes.
  ASSERT_OK_AND_ASSIGN(std::shared_ptr<ObjectStore> store, OpenObjectStore(spec_.output_uri));
  ASSERT_OK_AND_ASSIGN(const auto artifact, Checkpoint::Open(store, /*allow_quantized=*/true));
  ASSERT_OK_AND_ASSIGN(const HostBlock block, artifact->LoadBlock(1));
  const BlockSpec& spec = artifact->config().blocks[1];
  const std::vector<float>& norm = block[spec.FindTensor("input_layernorm.weight")];
  const std::vector<float>& planted =
      model_.tensors.at("model.layers.1.input_layernorm.weight").values;
  for (size_t c = 0; c < norm.size(); ++c) {
    const float ratio = Bfloat16ToFloat(FloatToBfloat16(planted[c])) / norm[c];
    EXPECT_EQ(std::exp2(std::nearbyint(std::log2(ratio))), ratio) << c;  // an exact power of two
  }
  EXPECT_LT(norm[3], planted[3] / 16);
  EXPECT_EQ(norm[4], Bfloat16ToFloat(FloatToBfloat16(planted[4])));
}

TEST_F(FoldingTest, UnplantedModelsHaveTheSameBytesAsWithoutFolding) {
  Plant("llama", 0, false, false);
  RunPlanted();
  ASSERT_OK_AND_ASSIGN(auto with, OpenObjectStore(spec_.output_uri));
  spec_.folding = Folding::kOff;
  spec_.output_uri += "off";
  RunPlanted();
  ASSERT_OK_AND_ASSIGN(auto without, OpenObjectStore(spec_.output_uri));
  for (const char* file :
       {"model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors"}) {
    ASSERT_OK_AND_ASSIGN(const std::string a, with->Read(file, 1 << 24));
    ASSERT_OK_AND_ASSIGN(const std::string b, without->Read(file, 1 << 24));
    EXPECT_EQ(a, b);
  }
}

TEST_F(FoldingTest, SolversRunAsJobs) {
  Plant("qwen2", 0, false, false);
  for (const QuantizationMethod method :
       {QuantizationMethod::kGptq, QuantizationMethod::kAwq, QuantizationMethod::kFlexround}) {
    spec_.method = method;
    spec_.levels = Levels::kUniform;
    spec_.output_uri += "x";
    const Run run = RunPlanted();
    EXPECT_GT(run.error, 0);
    // Whole zero points and fp16's digits: the export of a uniform format is exact.
    EXPECT_EQ(run.outcome.report.layers.size(), 2u);
    spec_.output_uri += "y";
    const Run again = RunPlanted(/*keep_cache=*/false);
    EXPECT_EQ(run.outcome.artifact.manifest_sha256, again.outcome.artifact.manifest_sha256);
  }
}

TEST_F(FoldingTest, ScalesBelowFp16AreNamed) {
  model_ = FixtureModel::Make("llama", 7);
  // Without folding, and between modules that no norm could take back.
  for (float& value : model_.tensors.at("model.layers.1.mlp.up_proj.weight").values) {
    value *= 0x1p-24f;
  }
  spec_.model_uri = dir_.path() + "/small";
  model_.Write(spec_.model_uri);
  spec_.folding = Folding::kOff;
  ASSERT_OK_AND_ASSIGN(const FinalizeOutcome outcome, RunJob());
  EXPECT_THAT(outcome.report.warnings,
              Contains(HasSubstr("model.layers.1.mlp.up_proj: 96 groups of weights are so small")));
}

TEST_F(FoldingTest, ABrokenOriginalIsDoubted) {
  model_ = FixtureModel::Make("llama", 7);
  for (float& value : model_.tensors.at("model.layers.1.mlp.up_proj.weight").values) value = 0;
  spec_.model_uri = dir_.path() + "/broken";
  model_.Write(spec_.model_uri);
  ASSERT_OK_AND_ASSIGN(const FinalizeOutcome outcome, RunJob());
  EXPECT_THAT(outcome.report.warnings,
              Contains(HasSubstr("100% of model.layers.1.mlp.up_proj.weight are zeros")));
  // Random weights know nothing of any text.
  EXPECT_THAT(outcome.report.warnings, Contains(HasSubstr("guessing among its 128 tokens")));
}

}  // namespace
}  // namespace uniquanf
