#include <gtest/gtest.h>

#include <cmath>

#include "common/safetensors/float_conversion.h"
#include "tests/unit/worker/ops/reference.h"

namespace uniquanf {
namespace {

using namespace reference;  // NOLINT: the whole file compares against it

class EndsTest : public testing::TestWithParam<DeviceCase> {
 protected:
  std::unique_ptr<Backend> backend_ = MakeBackend(GetParam().kind);
  DType act_ = GetParam().act;
};

TEST_P(EndsTest, EmbeddingCopiesRows) {
  const int64_t vocab_size = 50, width = 24;
  const Tensor table =
      Upload(backend_.get(), act_, {vocab_size, width}, RandomFloats(vocab_size * width, 1));
  const std::vector<int32_t> ids = {49, 0, 7, 7, 31};
  Tensor out = Empty(backend_.get(), act_, {5, width});
  ops::Embedding(backend_.get(), UploadInts(backend_.get(), ids), table, &out);
  const Vector rows = Values(table), values = Values(out);
  for (size_t t = 0; t < ids.size(); ++t) {
    for (int64_t i = 0; i < width; ++i) {
      ASSERT_EQ(values[t * width + i], rows[ids[t] * width + i]);
    }
  }
}

TEST_P(EndsTest, CrossEntropyMatchesReference) {
  for (int64_t vocab_size : {1, 5, 33, 1030, 2048}) {
    for (int64_t t : {1, 7, 129}) {
      const Tensor logits =
          Upload(backend_.get(), act_, {t, vocab_size}, RandomFloats(t * vocab_size, 1, 6.0));
      std::vector<int32_t> targets;
      for (int64_t i = 0; i < t; ++i) {
        targets.push_back(i % 5 == 4 ? -1 : static_cast<int32_t>(i * 31 % vocab_size));
      }
      Tensor nll = Empty(backend_.get(), DType::kFloat32, {t});
      ops::CrossEntropy(backend_.get(), logits, UploadInts(backend_.get(), targets), &nll);
      const Vector values = Values(logits);
      Vector expected;
      for (int64_t i = 0; i < t; ++i) {
        expected.push_back(targets[i] < 0 ? 0.0
                                          : NegativeLogLikelihood(&values[i * vocab_size],
                                                                  vocab_size, targets[i]));
      }
      ExpectClose(Values(nll), expected, DType::kFloat32, 8, "nll");
    }
  }
}

TEST_P(EndsTest, CastRoundsToNearestEven) {
  const std::vector<float> values = RandomFloats(20003, 1);
  const Tensor source = Upload(backend_.get(), DType::kFloat32, {20003}, values);
  Tensor narrow = Empty(backend_.get(), DType::kBfloat16, {20003});
  Tensor wide = Empty(backend_.get(), DType::kFloat32, {20003});
  ops::Cast(backend_.get(), source, &narrow);
  ops::Cast(backend_.get(), narrow, &wide);
  const Vector rounded = Values(narrow), widened = Values(wide);
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(rounded[i], Bfloat16ToFloat(FloatToBfloat16(values[i])));
    ASSERT_EQ(widened[i], rounded[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, EndsTest, testing::ValuesIn(DeviceCases()),
                         [](const auto& info) { return DeviceCaseName(info.param); });

}  // namespace
}  // namespace uniquanf
