#include "worker/model/language_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/worker/model/model_fixture.h"
#include "tests/unit/worker/ops/reference.h"

namespace uniquanf {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

class LanguageModelTest : public testing::Test {
 protected:
  void SetUp() override {
    WriteFixture(dir_.path(), options_, MakeFixtureTensors(options_));
    ASSERT_OK_AND_ASSIGN(checkpoint_, Checkpoint::Open(*OpenObjectStore(dir_.path()), false));
  }
  static std::vector<int32_t> Tokens(int count) {
    std::vector<int32_t> tokens(count);
    for (int i = 0; i < count; ++i) tokens[i] = (i * 7 + i / 3) % 40;
    return tokens;
  }

  TempDir dir_;
  FixtureOptions options_;
  std::unique_ptr<Backend> backend_ = NewCpuBackend({.num_threads = 2});
  std::unique_ptr<Checkpoint> checkpoint_;
};

TEST_F(LanguageModelTest, EmbedsTokens) {
  ASSERT_OK_AND_ASSIGN(const Tensor hidden, EmbedTokens(backend_.get(), *checkpoint_,
                                                        DType::kFloat32, {3, 39, 0, 3}, 2, 2));
  EXPECT_EQ(hidden.shape(), (Shape{2, 2, 16}));
  ASSERT_OK_AND_ASSIGN(const std::vector<float> values, hidden.ToFloats());
  const std::vector<float> table = MakeFixtureTensors(options_)["model.embed_tokens.weight"].values;
  const std::vector<int> tokens = {3, 39, 0, 3};
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(
        std::vector<float>(values.begin() + i * 16, values.begin() + (i + 1) * 16),
        std::vector<float>(table.begin() + tokens[i] * 16, table.begin() + (tokens[i] + 1) * 16));
  }
}

TEST_F(LanguageModelTest, TokensBeyondTheVocabularyAreNamed) {
  for (int32_t bad : {40, -1}) {
    std::vector<int32_t> tokens = Tokens(32);
    tokens[21] = bad;
    PerplexityOptions options;
    options.window = 8;
    EXPECT_THAT(EvaluatePerplexity(backend_.get(), *checkpoint_, tokens, options),
                FailsWith(kInvalid, std::string("TOKEN_OUT_OF_RANGE"),
                          AllOf(HasSubstr("position 21"), HasSubstr("40"))));
    EXPECT_THAT(EmbedTokens(backend_.get(), *checkpoint_, DType::kFloat32, tokens, 4, 8),
                FailsWith(kInvalid, std::string("TOKEN_OUT_OF_RANGE")));
  }
}

TEST_F(LanguageModelTest, TooFewTokensAreRefused) {
  PerplexityOptions options;
  options.window = 64;
  EXPECT_THAT(EvaluatePerplexity(backend_.get(), *checkpoint_, Tokens(63), options),
              FailsWith(kInvalid, std::string("TOO_FEW_TOKENS"), HasSubstr("63")));
  options.window = 1;
  EXPECT_THAT(EvaluatePerplexity(backend_.get(), *checkpoint_, Tokens(63), options),
              FailsWith(kInvalid, std::string("INVALID_EVALUATION_WINDOW")));
}

TEST_F(LanguageModelTest, PerplexityIsThatOfTheWholeModel) {
  // The same in double precision from the references' parts is tests/unit/worker/ops' block test;
  // here: the ends and the windows. A model whose layers are zero is embedding, norm and head.
  FixtureTensors tensors = MakeFixtureTensors(options_);
  for (auto& [name, tensor] : tensors) {
    if (name.find("o_proj") != std::string::npos || name.find("down_proj") != std::string::npos) {
      std::fill(tensor.values.begin(), tensor.values.end(), 0.0f);
    }
  }
  WriteFixture(dir_.path(), options_, tensors);
  ASSERT_OK_AND_ASSIGN(checkpoint_, Checkpoint::Open(*OpenObjectStore(dir_.path()), false));
  const std::vector<int32_t> tokens = Tokens(50);
  PerplexityOptions options;
  options.window = 8;
  options.max_windows = 5;
  int64_t last_done = 0, last_total = 0;
  options.progress = [&](int64_t done, int64_t total) {
    EXPECT_EQ(done, last_done + 1);
    last_done = done;
    last_total = total;
  };
  ASSERT_OK_AND_ASSIGN(const Perplexity result,
                       EvaluatePerplexity(backend_.get(), *checkpoint_, tokens, options));
  EXPECT_EQ(last_done, last_total);
  EXPECT_EQ(result.num_tokens, 7 * 5);

  const std::vector<float>& table = tensors["model.embed_tokens.weight"].values;
  const reference::Vector rows(table.begin(), table.end());
  const std::vector<float>& norm = tensors["model.norm.weight"].values;
  const reference::Vector normed =
      reference::RmsNorm(rows, reference::Vector(norm.begin(), norm.end()), 1e-5);
  double sum = 0;
  for (int window = 0; window < 5; ++window) {
    for (int i = 0; i < 7; ++i) {
      const int32_t id = tokens[window * 8 + i], next = tokens[window * 8 + i + 1];
      const reference::Vector x(normed.begin() + id * 16, normed.begin() + (id + 1) * 16);
      const reference::Vector logits = reference::Linear(x, rows, {}, 1, 40, 16);
      sum += reference::NegativeLogLikelihood(logits.data(), 40, next);
    }
  }
  EXPECT_NEAR(result.mean_nll, sum / 35, 1e-6);
  EXPECT_NEAR(result.perplexity, std::exp(sum / 35), 1e-4);
}

TEST_F(LanguageModelTest, EvaluationCanBeCancelled) {
  PerplexityOptions options;
  options.window = 8;
  int asked = 0;
  options.stop = [&] { return ++asked == 3; };
  EXPECT_EQ(EvaluatePerplexity(backend_.get(), *checkpoint_, Tokens(64), options).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(asked, 3);
}

TEST_F(LanguageModelTest, ASequenceDoesNotDependOnItsNeighbours) {
  ASSERT_OK_AND_ASSIGN(const HostBlock block, checkpoint_->LoadBlock(0));
  const BlockSpec& spec = checkpoint_->config().blocks[0];
  ASSERT_OK_AND_ASSIGN(const BlockWeights weights,
                       UploadBlock(backend_.get(), spec, DType::kFloat32, block));
  ASSERT_OK_AND_ASSIGN(const RopeTables rope,
                       MakeRopeTables(backend_.get(), checkpoint_->config().ropes, 9));
  const std::vector<float> values = reference::RandomFloats(3 * 9 * 16, 1);
  const Tensor all = reference::Upload(backend_.get(), DType::kFloat32, {3, 9, 16}, values);
  Tensor out = reference::Empty(backend_.get(), DType::kFloat32, {3, 9, 16});
  ASSERT_OK(ForwardBlock(backend_.get(), spec, rope, weights, all, &out));
  Tensor last = reference::Upload(backend_.get(), DType::kFloat32, {1, 9, 16},
                                  std::vector<float>(values.end() - 9 * 16, values.end()));
  ASSERT_OK(ForwardBlockInPlace(backend_.get(), spec, rope, weights, &last));
  ASSERT_OK_AND_ASSIGN(const std::vector<float> together, out.ToFloats());
  ASSERT_OK_AND_ASSIGN(const std::vector<float> alone, last.ToFloats());
  EXPECT_EQ(std::vector<float>(together.end() - 9 * 16, together.end()), alone);
}

TEST(TinyModelTest, EvaluatesAsTheReferenceDoes) {
  std::unique_ptr<Backend> backend = NewCpuBackend({});
  const std::string examples = std::string(UNIQUANF_SOURCE_DIR) + "/examples";
  ASSERT_OK_AND_ASSIGN(const auto checkpoint,
                       Checkpoint::Open(*OpenObjectStore(examples + "/tiny"), false));
  ASSERT_OK_AND_ASSIGN(
      const auto file,
      SafetensorsFile::Open(*OpenObjectStore(examples + "/tokens"), "tiny_eval.safetensors"));
  ASSERT_OK_AND_ASSIGN(const TensorInfo info, file->Find("valid"));
  std::vector<int64_t> wide(info.num_elements());
  ASSERT_OK(file->ReadInt64(info, wide.data()));
  ASSERT_OK_AND_ASSIGN(
      const Perplexity result,
      EvaluatePerplexity(backend.get(), *checkpoint, std::vector<int32_t>(wide.begin(), wide.end()),
                         PerplexityOptions()));
  EXPECT_EQ(result.num_tokens, 204600);
  EXPECT_NEAR(result.perplexity, 25.2342, 25.2342 * 2e-4);
}

}  // namespace
}  // namespace uniquanf
