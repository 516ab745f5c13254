#include "worker/block/block_spec.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "worker/block/block_traits.h"

namespace uniquanf {
namespace {

// Stored values 0, 1, 2, ...: what a part gathers tells which elements it took.
std::vector<float> Counting(int64_t count) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), 0.0f);
  return values;
}

TensorSpec Part(Shape shape, Shape stored) {
  TensorSpec spec;
  spec.shape = std::move(shape);
  spec.stored.shape = std::move(stored);
  return spec;
}

std::vector<float> Gathered(const TensorSpec& spec) {
  int64_t size = 1;
  for (int64_t dim : spec.stored.shape) size *= dim;
  const auto [begin, end] = spec.StoredRange();
  EXPECT_LE(end, size);
  const std::vector<float> stored = Counting(size);
  std::vector<float> values(spec.num_elements());
  spec.Gather(stored.data() + begin, begin, values.data());
  return values;
}

TEST(TensorSpecTest, GathersSlicesTransposesAndExperts) {
  TensorSpec rows = Part({2, 3}, {6, 3});
  rows.stored.row_offset = 2;
  rows.stored.row_run = 2;
  rows.stored.row_period = 6;
  EXPECT_EQ(Gathered(rows), (std::vector<float>{6, 7, 8, 9, 10, 11}));
  TensorSpec every_other = Part({3, 2}, {6, 2});
  every_other.stored.row_offset = 1;
  every_other.stored.row_run = 1;
  every_other.stored.row_period = 2;
  EXPECT_EQ(Gathered(every_other), (std::vector<float>{2, 3, 6, 7, 10, 11}));
  TensorSpec transposed = Part({2, 3}, {3, 2});
  transposed.stored.transposed = true;
  EXPECT_EQ(Gathered(transposed), (std::vector<float>{0, 2, 4, 1, 3, 5}));
  TensorSpec expert = Part({2, 2}, {3, 2, 2});
  expert.stored.expert = 2;
  EXPECT_EQ(Gathered(expert), (std::vector<float>{8, 9, 10, 11}));
  // gpt-oss: [E, K, 2N], gate in the even columns.
  TensorSpec gate = Part({2, 3}, {2, 3, 4});
  gate.stored.expert = 1;
  gate.stored.transposed = true;
  gate.stored.row_offset = 0;
  gate.stored.row_run = 1;
  gate.stored.row_period = 2;
  EXPECT_EQ(Gathered(gate), (std::vector<float>{12, 16, 20, 14, 18, 22}));
}

// All parts of the stored tensors of a block cover them without overlapping.
void ExpectPartsMakeTheWhole(const BlockTraits& traits) {
  const BlockSpec spec = BuildBlock(traits);
  std::map<std::string, std::vector<float>> joined;
  for (const TensorSpec& tensor : spec.tensors) {
    int64_t size = 1;
    for (int64_t dim : tensor.stored.shape) size *= dim;
    std::vector<float>& whole = joined.try_emplace(tensor.stored.name, size, -1.0f).first->second;
    const std::vector<float> values = Gathered(tensor);
    std::vector<float> back(size, -1.0f);
    tensor.Scatter(values.data(), back.data());
    for (int64_t i = 0; i < size; ++i) {
      if (back[i] < 0) continue;
      EXPECT_EQ(whole[i], -1.0f) << tensor.stored.name << " element " << i << " twice";
      whole[i] = back[i];
    }
  }
  for (const auto& [name, whole] : joined) {
    EXPECT_EQ(whole, Counting(static_cast<int64_t>(whole.size()))) << name;
  }
}

TEST(BlockTraitsTest, FusedAndStackedFormsSplitAndJoinAgain) {
  BlockTraits traits;
  traits.hidden_size = 12;
  traits.mlp.size = 10;
  traits.attention.num_heads = 4;
  traits.attention.num_kv_heads = 2;
  traits.attention.head_dim = 6;
  traits.attention.qkv_bias = traits.mlp.bias = true;
  ExpectPartsMakeTheWhole(traits);
  traits.attention.fused_module = "self_attn.qkv_proj";
  traits.attention.fused = AttentionTraits::Fused::kInOrder;
  traits.mlp.fused_module = "mlp.gate_up_proj";
  ExpectPartsMakeTheWhole(traits);
  traits.attention.fused = AttentionTraits::Fused::kPerGroup;
  traits.mlp.fused_up_first = true;
  ExpectPartsMakeTheWhole(traits);
  traits.attention.fused = AttentionTraits::Fused::kPerHead;
  traits.attention.num_kv_heads = 4;
  traits.attention.transposed = traits.mlp.transposed = true;
  ExpectPartsMakeTheWhole(traits);
  traits.mlp.size = 0;
  traits.experts.router.num_experts = 3;
  traits.experts.router.top_k = 2;
  traits.experts.size = 5;
  traits.experts.bias = true;
  ExpectPartsMakeTheWhole(traits);
  traits.experts.stacked_gate_up = "mlp.experts.gate_up_proj";
  traits.experts.stacked_down = "mlp.experts.down_proj";
  ExpectPartsMakeTheWhole(traits);
  traits.experts.stacked_transposed = traits.experts.stacked_interleaved = true;
  traits.experts.shared.size = 7;
  traits.experts.shared_gate = "mlp.shared_expert_gate";
  ExpectPartsMakeTheWhole(traits);
}

}  // namespace
}  // namespace uniquanf
