// Tests of tensors that the source fuses, stacks or transposes, put together again.
#include "worker/export/split_tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/sample_artifact.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace uniquanf {
namespace {

// A model in which the sample artifact's modules are parts of other tensors.
class SplitTensorsTest : public testing::Test {
 protected:
  SplitTensorsTest() {
    store_ = OpenObjectStore(dir_.path()).value();
    WriteSampleArtifact(store_.get());
    reader_ = ArtifactReader::Open(store_).value();
    // Every second row of a matrix of 8.
    TensorSpec q;
    q.module = "self_attn.q_proj";
    q.role = TensorRole::kLinear;
    q.shape = {4, 64};
    q.stored.name = "self_attn.fused.weight";
    q.stored.shape = {8, 64};
    q.stored.row_offset = 1;
    q.stored.row_run = 1;
    q.stored.row_period = 2;
    TensorSpec o;
    o.module = "self_attn.o_proj";
    o.role = TensorRole::kLinear;
    o.shape = {2, 4};
    o.stored.name = "self_attn.turned.weight";
    o.stored.shape = {4, 2};
    o.stored.transposed = true;
    TensorSpec plain;
    plain.module = "mlp.down_proj";
    plain.role = TensorRole::kLinear;
    plain.shape = plain.stored.shape = {3, 40};
    plain.stored.name = "mlp.down_proj.weight";
    TensorSpec router;
    router.role = TensorRole::kMatrix;
    router.shape = router.stored.shape = {2, 4};
    router.stored.name = "gate.weight";
    model_.num_layers = 1;
    model_.blocks.resize(1);
    for (const TensorSpec& tensor : {q, o, plain, router}) model_.blocks[0].AddTensor(tensor);
  }
  const TempDir dir_;
  std::shared_ptr<ObjectStore> store_;
  std::unique_ptr<ArtifactReader> reader_;
  ModelConfig model_;
};

TEST_F(SplitTensorsTest, FindsWhatIsNotAsTheSourceHasIt) {
  const auto tensors = FindSplitTensors(reader_->manifest(), model_);
  ASSERT_EQ(tensors.size(), 2u);
  EXPECT_EQ(tensors[0].name, "model.layers.0.self_attn.fused.weight");
  EXPECT_EQ(tensors[0].shape, (std::vector<int64_t>{8, 64}));
  EXPECT_TRUE(tensors[0].is_quantized());
  EXPECT_EQ(tensors[1].name, "model.layers.0.self_attn.turned.weight");
  EXPECT_FALSE(tensors[1].is_quantized());
}

TEST_F(SplitTensorsTest, RowsAndValuesGoWhereTheSourceHasThem) {
  const auto tensors = FindSplitTensors(reader_->manifest(), model_);
  ASSERT_OK_AND_ASSIGN(const ManifestModule module, JoinedModule(tensors[0]));
  EXPECT_EQ(module.name, "model.layers.0.self_attn.fused");
  EXPECT_EQ(module.num_outputs, 8);
  EXPECT_EQ(module.bits, 3);
  EXPECT_EQ(module.group_size, 32);
  ASSERT_OK_AND_ASSIGN(const PackedLinear part,
                       reader_->ReadPacked("model.layers.0.self_attn.q_proj"));
  std::vector<float> own(4 * 64), packed_values(8 * 64);
  Dequantize(part, own.data());
  ASSERT_OK_AND_ASSIGN(const PackedLinear joined, ReadJoinedRows(*reader_, tensors[0]));
  EXPECT_EQ(joined.num_outputs, 8);
  Dequantize(joined, packed_values.data());
  SafetensorsDType dtype = SafetensorsDType::kF32;
  ASSERT_OK_AND_ASSIGN(const std::vector<float> values,
                       ReadJoinedValues(*reader_, tensors[0], &dtype));
  ASSERT_EQ(values.size(), 8u * 64);
  for (int row = 0; row < 4; ++row) {
    for (int k = 0; k < 64; ++k) {
      EXPECT_EQ(packed_values[(2 * row + 1) * 64 + k], own[row * 64 + k]);
      EXPECT_EQ(values[(2 * row + 1) * 64 + k], own[row * 64 + k]);
      EXPECT_EQ(values[2 * row * 64 + k], 0);
    }
  }
  ASSERT_OK_AND_ASSIGN(const std::vector<float> turned,
                       ReadJoinedValues(*reader_, tensors[1], &dtype));
  EXPECT_EQ(turned.size(), 8u);
  EXPECT_EQ(dtype, SafetensorsDType::kBF16);
}

TEST_F(SplitTensorsTest, SaysWhatAFormByRowsCannotHold) {
  const auto refused = [](const SplitTensor& tensor, const char* why) {
    EXPECT_THAT(JoinedModule(tensor), FailsWith(absl::StatusCode::kInvalidArgument,
                                                "EXPORT_NOT_POSSIBLE", testing::HasSubstr(why)));
  };
  const auto tensors = FindSplitTensors(reader_->manifest(), model_);
  refused(tensors[1], "transposed");
  SplitTensor mixed = tensors[0];
  mixed.parts.push_back(tensors[0].parts[0]);
  mixed.parts[1].packed = nullptr;
  refused(mixed, "full precision");
  ManifestModule other = *tensors[0].parts[0].packed;
  other.bits = 4;
  mixed.parts[1].packed = &other;
  refused(mixed, "differ in bits");
}

}  // namespace
}  // namespace uniquanf
