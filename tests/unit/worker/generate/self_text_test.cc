// Text that examples/tiny writes itself.
#include "worker/generate/self_text.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "worker/generate/sampler.h"

namespace uniquanf {
namespace {

class SelfTextTest : public testing::Test {
 protected:
  void SetUp() override { Load(2); }
  void Load(int num_threads) {
    model_.reset();
    checkpoint_.reset();
    CpuBackendOptions options;
    options.num_threads = num_threads;
    backend_ = NewCpuBackend(options);
    auto store = OpenObjectStore(UNIQUANF_SOURCE_DIR "/examples/tiny");
    ASSERT_TRUE(store.ok()) << store.status();
    auto checkpoint = Checkpoint::Open(*store, /*allow_quantized=*/false);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    checkpoint_ = *std::move(checkpoint);
    auto model = ResidentModel::Load(backend_.get(), *checkpoint_, {});
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }
  std::vector<int32_t> Write(const SelfTextOptions& options, int64_t count) {
    auto ids = WriteSelfText(model_.get(), options, count);
    EXPECT_TRUE(ids.ok()) << ids.status();
    return ids.value_or(std::vector<int32_t>());
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<ResidentModel> model_;
};

TEST_F(SelfTextTest, TheSameTokensForEveryNumberOfThreadsAndSequences) {
  SelfTextOptions options;
  options.sequence_length = 12;
  options.seed = 5;
  options.begin = 0;
  const std::vector<int32_t> many = Write(options, 70);
  ASSERT_EQ(many.size(), 70u * 12);
  Load(1);
  const std::vector<int32_t> few = Write(options, 3);
  EXPECT_TRUE(std::equal(few.begin(), few.end(), many.begin()));
  // The second batch by itself, as after a kill.
  const auto writer = *SelfTextWriter::Create(model_.get(), options);
  const std::vector<int32_t> second = *writer->WriteBatch(1);
  EXPECT_TRUE(std::equal(many.begin() + 64 * 12, many.end(), second.begin()));
  options.seed = 6;
  EXPECT_NE(Write(options, 3), few);
}

TEST_F(SelfTextTest, SequencesDifferAndBeginWhereTheyAreToldTo) {
  SelfTextOptions options;
  options.sequence_length = 10;
  options.begin = 7;
  std::set<std::vector<int32_t>> distinct;
  const std::vector<int32_t> from_token = Write(options, 20);
  for (int s = 0; s < 20; ++s) {
    EXPECT_EQ(from_token[s * 10], 7);
    distinct.insert({from_token.begin() + s * 10, from_token.begin() + s * 10 + 10});
  }
  EXPECT_GT(distinct.size(), 18u);
  options.begin = -1;
  const std::vector<int32_t> drawn = Write(options, 20);
  std::set<int32_t> first;
  for (int s = 0; s < 20; ++s) first.insert(drawn[s * 10]);
  EXPECT_GT(first.size(), 15u);
}

TEST_F(SelfTextTest, PromptsAreCutFromTheCorpus) {
  SelfTextOptions options;
  options.sequence_length = 9;
  options.prompt_length = 4;
  options.corpus_length = 6;
  for (int32_t i = 0; i < 5 * 6; ++i) options.corpus.push_back(100 + i);
  const std::vector<int32_t> ids = Write(options, 60);
  std::set<int32_t> begins;
  for (int s = 0; s < 60; ++s) {
    const int32_t begin = ids[s * 9];
    begins.insert(begin);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(ids[s * 9 + i], begin + i);
    EXPECT_LE((begin - 100) % 6, 2);
  }
  EXPECT_GT(begins.size(), 10u);
}

// Each token is drawn from what the whole sequence before it predicts.
TEST_F(SelfTextTest, TokensAreDrawnFromTheModel) {
  SelfTextOptions options;
  options.sequence_length = 8;
  options.begin = 3;
  options.temperature = 0.8;
  const std::vector<int32_t> ids = Write(options, 2);
  const auto whole = *IncrementalModel::Create(model_.get(), 1, 8);
  const Sampling sampling = {options.temperature, 1, options.seed};
  for (uint64_t s = 0; s < 2; ++s) {
    for (int64_t t = 1; t < 8; ++t) {
      const auto begin = ids.begin() + s * 8;
      ASSERT_TRUE(whole->Begin(std::vector<int32_t>(begin, begin + t)).ok());
      const std::vector<float> logits = *whole->Logits();
      EXPECT_EQ(*SampleToken(logits, sampling, s, t), ids[s * 8 + t]) << s << ", " << t;
    }
  }
}

TEST_F(SelfTextTest, StopsWhenAsked) {
  SelfTextOptions options;
  options.sequence_length = 64;
  int64_t done = 0;
  options.progress = [&](int64_t position, int64_t total) { done = position; };
  options.stop = [&] { return done >= 5; };
  const auto ids = WriteSelfText(model_.get(), options, 4);
  EXPECT_TRUE(absl::IsCancelled(ids.status())) << ids.status();
  EXPECT_LT(done, 10);
}

TEST_F(SelfTextTest, LongerThanTheModelIsRefused) {
  SelfTextOptions options;
  options.sequence_length = 4096;
  const auto ids = WriteSelfText(model_.get(), options, 1);
  EXPECT_TRUE(absl::IsInvalidArgument(ids.status())) << ids.status();
}

}  // namespace
}  // namespace uniquanf
