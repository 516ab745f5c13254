// Bits under a budget: never over, nothing left that would fit, better than equal bits, the same on
// fused sets, and overrides win.
#include "worker/task/allocate_bits.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/unit/worker/task/task_fixture.h"
#include "worker/task/artifact_size.h"
#include "worker/task/content_store.h"

namespace uniquanf {
namespace {

using ::testing::HasSubstr;

std::vector<BitsSet> RandomSets(uint32_t seed, int count) {
  std::mt19937 engine(seed);
  std::vector<BitsSet> sets(count);
  for (BitsSet& set : sets) {
    set.num_weights = 1000 + engine() % 9000;
    const double scale = std::exp2(static_cast<double>(engine() % 12));
    for (int bits = 2; bits <= kMostBits; ++bits) {
      set.size[bits] = set.num_weights * bits + 16 * 40 * (bits + 1);
      set.cost[bits] = scale * static_cast<double>(set.num_weights) * std::pow(4.0, -bits);
    }
  }
  return sets;
}

TEST(DistributeBitsTest, NeverOverAndNothingThatWouldFitIsLeft) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    const std::vector<BitsSet> sets = RandomSets(seed, 1 + seed % 30);
    int64_t least = 0, most = 0, equal = 0;
    double equal_cost = 0;
    for (const BitsSet& set : sets) {
      least += set.size[2], most += set.size[kMostBits], equal += set.size[3];
      equal_cost += set.cost[3];
    }
    for (const int64_t budget : {least, least + (most - least) / 7, equal, most - 1, most + 5}) {
      ASSERT_OK_AND_ASSIGN(const std::vector<int> bits, DistributeBits(sets, budget));
      int64_t used = 0;
      double cost = 0;
      for (size_t i = 0; i < sets.size(); ++i) used += sets[i].size[bits[i]];
      for (size_t i = 0; i < sets.size(); ++i) cost += sets[i].cost[bits[i]];
      EXPECT_LE(used, budget) << seed;
      for (size_t i = 0; i < sets.size(); ++i) {
        if (bits[i] == kMostBits) continue;
        EXPECT_GT(used - sets[i].size[bits[i]] + sets[i].size[bits[i] + 1], budget) << seed;
      }
      if (budget == equal) {
        EXPECT_LE(cost, equal_cost * 1.0001) << seed;
      }
    }
    EXPECT_THAT(DistributeBits(sets, least - 1),
                FailsWith(absl::StatusCode::kInvalidArgument, "BUDGET_TOO_SMALL",
                          HasSubstr(absl::StrCat("take ", least))));
  }
}

class AllocateBitsTest : public TaskTest {
 protected:
  AllocateBitsTest() { model_.Write(spec_.model_uri); }
};

TEST_F(AllocateBitsTest, AJobKeepsItsBudgetAndFusedSetsShareTheirBits) {
  for (const QuantizationMethod method :
       {QuantizationMethod::kUniquanf, QuantizationMethod::kRtn}) {
    spec_.method = method;
    spec_.average_bits = 4.7;
    spec_.group_size = 32;
    spec_.output_uri += "x";
    spec_.overrides = {{"*.layers.0.mlp.down_proj", 6, ModuleOverride::kJobsGroupSize, false},
                       {"*.layers.1.mlp.down_proj", 0, ModuleOverride::kJobsGroupSize, true}};
    ASSERT_OK_AND_ASSIGN(const PrepareOutcome prepared, RunPrepare(spec_, env_));
    ASSERT_OK_AND_ASSIGN(const std::string json,
                         GetContent(env_.work.get(), prepared.plan_sha256, 1 << 24));
    ASSERT_OK_AND_ASSIGN(const Plan plan, Plan::FromJson(json));
    EXPECT_EQ(plan.ToJson(), json);
    const std::string first = "model.layers.0.", attention = first + "self_attn.";
    EXPECT_EQ(plan.allocation.at(attention + "q_proj"), plan.allocation.at(attention + "k_proj"));
    EXPECT_EQ(plan.allocation.at(attention + "q_proj"), plan.allocation.at(attention + "v_proj"));
    EXPECT_EQ(plan.allocation.at(first + "mlp.gate_proj"),
              plan.allocation.at(first + "mlp.up_proj"));
    EXPECT_EQ(plan.allocation.count(first + "mlp.down_proj"), 0u);
    EXPECT_EQ(plan.allocation.count("model.layers.1.mlp.down_proj"), 0u);
    EXPECT_EQ(SettingsOf(plan, first + "mlp.down_proj").bits, 6);
    ASSERT_OK_AND_ASSIGN(const FinalizeOutcome outcome, RunJob());
    EXPECT_LE(outcome.report.average_bits, 4.7);
    EXPECT_GT(outcome.report.average_bits, 4.2);
  }
}

TEST_F(AllocateBitsTest, AnArtifactHasTheSizeThatWasComputedAndNoSetCouldHaveABitMore) {
  ASSERT_OK_AND_ASSIGN(const FinalizeOutcome equal, RunJob());
  for (const int64_t more : {0, 3, 700, 5001}) {
    spec_.artifact_size = equal.artifact.size_bytes + more;
    spec_.output_uri += "x";
    ASSERT_OK_AND_ASSIGN(const PrepareOutcome prepared, RunPrepare(spec_, env_));
    ASSERT_OK_AND_ASSIGN(const std::string json,
                         GetContent(env_.work.get(), prepared.plan_sha256, 1 << 24));
    ASSERT_OK_AND_ASSIGN(Plan plan, Plan::FromJson(json));
    ASSERT_OK_AND_ASSIGN(const FinalizeOutcome outcome, RunJob());
    EXPECT_LE(outcome.artifact.size_bytes, spec_.artifact_size);
    ASSERT_OK_AND_ASSIGN(std::shared_ptr<ObjectStore> store, OpenObjectStore(spec_.model_uri));
    ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(store, false));
    ASSERT_OK_AND_ASSIGN(const int64_t computed, ArtifactSize(plan, *checkpoint));
    EXPECT_EQ(computed, outcome.artifact.size_bytes);
    for (const char* set : {"layers.0.self_attn.q_proj", "layers.1.mlp.down_proj"}) {
      const std::string first = absl::StrCat("model.", set);
      Plan larger = plan;
      if (larger.allocation.at(first) == kMostBits) continue;
      for (auto& [module, bits] : larger.allocation) {
        const bool is_q = absl::StrContains(first, "q_proj");
        const bool fused = is_q && absl::StartsWith(module, "model.layers.0.self_attn.") &&
                           !absl::StrContains(module, "o_proj");
        if (module == first || fused) ++bits;
      }
      ASSERT_OK_AND_ASSIGN(const int64_t size, ArtifactSize(larger, *checkpoint));
      EXPECT_GT(size, spec_.artifact_size);
    }
  }
  spec_.artifact_size = 5000;
  spec_.output_uri += "x";
  EXPECT_THAT(RunPrepare(spec_, env_), FailsWith(absl::StatusCode::kInvalidArgument,
                                                 "BUDGET_TOO_SMALL", HasSubstr("bytes")));
}

TEST_F(AllocateBitsTest, ABudgetThatNothingFitsIsRefused) {
  spec_.average_bits = 2.1;
  EXPECT_THAT(RunPrepare(spec_, env_), FailsWith(absl::StatusCode::kInvalidArgument,
                                                 "BUDGET_TOO_SMALL", HasSubstr("2 bits")));
}

}  // namespace
}  // namespace uniquanf
