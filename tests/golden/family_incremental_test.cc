// Model families in parts: the logits of a first part and single tokens after it are those of the
// whole sequences.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tests/golden/family_folders.h"
#include "worker/generate/incremental_model.h"
#include "worker/model/language_model.h"

namespace uniquanf::golden {
namespace {

constexpr double kBound = 1e-4;

class FamilyIncrementalTest : public testing::TestWithParam<FamilyCase> {
 protected:
  void SetUp() override {
    backend_ = MakeBackend(GetParam().device);
    ASSERT_NE(backend_, nullptr);
    auto store = OpenObjectStore(FolderPath(GetParam().folder));
    ASSERT_TRUE(store.ok()) << store.status();
    auto checkpoint = Checkpoint::Open(*store, /*allow_quantized=*/false);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    checkpoint_ = *std::move(checkpoint);
    auto file = SafetensorsFile::Open(*store, "golden.safetensors");
    ASSERT_TRUE(file.ok()) << file.status();
    auto info = (*file)->Find("input_ids");
    ASSERT_TRUE(info.ok()) << info.status();
    std::vector<int64_t> ids(info->num_elements());
    ASSERT_TRUE((*file)->ReadInt64(*info, ids.data()).ok());
    ids_.assign(ids.begin(), ids.end());
    batch_ = info->shape[0];
    length_ = info->shape[1];
    auto model = ResidentModel::Load(backend_.get(), *checkpoint_, {});
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }

  // [batch, length, V], from whole sequences.
  std::vector<float> WholeLogits() {
    const ModelConfig& config = checkpoint_->config();
    Tensor x = *EmbedTokens(backend_.get(), *checkpoint_, DType::kFloat32, ids_, batch_, length_);
    const RopeTables rope = *MakeRopeTables(backend_.get(), config.ropes, length_);
    for (int layer = 0; layer < config.num_layers; ++layer) {
      const absl::Status status = ForwardBlockInPlace(backend_.get(), config.blocks[layer], rope,
                                                      model_->weights(layer), &x);
      if (!status.ok()) return {};  // the device lacks an op: the test is skipped
    }
    Tensor logits =
        *Tensor::Allocate(backend_.get(), DType::kFloat32, {batch_ * length_, config.vocab_size});
    model_->ApplyHead(x, &logits);
    return *logits.ToFloats();
  }
  std::vector<int32_t> Columns(int64_t first, int64_t count) const {
    std::vector<int32_t> columns;
    for (int64_t s = 0; s < batch_; ++s) {
      const auto begin = ids_.begin() + s * length_ + first;
      columns.insert(columns.end(), begin, begin + count);
    }
    return columns;
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<ResidentModel> model_;
  std::vector<int32_t> ids_;
  int64_t batch_ = 0, length_ = 0;
};

TEST_P(FamilyIncrementalTest, LogitsAreThoseOfWholeSequences) {
  const std::vector<float> whole = WholeLogits();
  auto sequences = IncrementalModel::Create(model_.get(), batch_, length_);
  if (absl::IsUnimplemented(sequences.status())) GTEST_SKIP() << sequences.status();
  ASSERT_TRUE(sequences.ok()) << sequences.status();
  ASSERT_FALSE(whole.empty());
  const int64_t vocab_size = checkpoint_->config().vocab_size;
  double scale = 0;
  for (float value : whole) scale = std::max<double>(scale, std::fabs(value));
  double worst = 0;
  // The second pass begins anew: nothing of the first may be left.
  for (const int64_t first : {int64_t{1}, length_ / 2, length_ - 1}) {
    for (int64_t t = first; t <= length_; ++t) {
      const absl::Status status = t == first ? (*sequences)->Begin(Columns(0, first))
                                             : (*sequences)->Next(Columns(t - 1, 1));
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_EQ((*sequences)->length(), t);
      const std::vector<float> logits = *(*sequences)->Logits();
      for (int64_t s = 0; s < batch_; ++s) {
        for (int64_t i = 0; i < vocab_size; ++i) {
          const double expected = whole[(s * length_ + t - 1) * vocab_size + i];
          const double error = std::fabs(logits[s * vocab_size + i] - expected);
          worst = std::isfinite(error) ? std::max(worst, error) : INFINITY;
        }
      }
      ASSERT_LE(worst, kBound * scale) << "first part " << first << ", token " << t;
    }
  }
  RecordProperty("worst", std::to_string(worst / scale));
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyIncrementalTest, testing::ValuesIn(FamilyCases()),
                         [](const testing::TestParamInfo<FamilyCase>& info) {
                           return info.param.folder + "_" + info.param.device;
                         });

}  // namespace
}  // namespace uniquanf::golden
