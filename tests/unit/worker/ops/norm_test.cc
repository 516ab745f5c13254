#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/worker/ops/reference.h"

namespace uniquanf {
namespace {

using namespace reference;  // NOLINT: the whole file compares against it

constexpr float kEps = 1e-5f;

class RmsNormTest : public testing::TestWithParam<DeviceCase> {
 protected:
  std::unique_ptr<Backend> backend_ = MakeBackend(GetParam().kind);
  DType act_ = GetParam().act;
};

TEST_P(RmsNormTest, MatchesReference) {
  for (int64_t width : {8, 64, 80, 192, 1000, 4096}) {
    for (int64_t rows : {1, 7, 129}) {
      SCOPED_TRACE(testing::Message() << "rows " << rows << " width " << width);
      const Shape shape = {rows, width};
      const Tensor x = Upload(backend_.get(), act_, shape, RandomFloats(rows * width, 1, 3.0));
      const Tensor b = Upload(backend_.get(), act_, shape, RandomFloats(rows * width, 2));
      const Tensor dy = Upload(backend_.get(), act_, shape, RandomFloats(rows * width, 3));
      const Tensor weight =
          Upload(backend_.get(), DType::kFloat32, {width}, RandomFloats(width, 4));
      Tensor y = Empty(backend_.get(), act_, shape);
      Tensor inv_rms = Empty(backend_.get(), DType::kFloat32, {rows});
      ops::RmsNormForward(backend_.get(), x, weight, kEps, &y, &inv_rms);
      ExpectClose(Values(y), RmsNorm(Values(x), Values(weight), kEps), act_, 4, "y");

      const Vector gradient = RmsNormGradient(Values(dy), Values(x), Values(weight), kEps);
      Tensor dx = Empty(backend_.get(), act_, shape);
      ops::RmsNormBackward(backend_.get(), dy, x, weight, inv_rms, false, &dx);
      ExpectClose(Values(dx), gradient, act_, 4, "dx");
      Vector expected = Values(b);
      for (size_t i = 0; i < expected.size(); ++i) expected[i] += gradient[i];
      dx = Upload(backend_.get(), act_, shape, RandomFloats(rows * width, 2));
      ops::RmsNormBackward(backend_.get(), dy, x, weight, inv_rms, true, &dx);
      ExpectClose(Values(dx), expected, act_, 4, "accumulated dx");

      Tensor sum = Empty(backend_.get(), act_, shape);
      ops::AddRmsNormForward(backend_.get(), x, b, weight, kEps, &sum, &y, &inv_rms);
      expected = Values(x);
      const Vector addend = Values(b);
      for (size_t i = 0; i < expected.size(); ++i) expected[i] += addend[i];
      ExpectClose(Values(sum), expected, act_, 1, "sum");
      ExpectClose(Values(y), RmsNorm(expected, Values(weight), kEps), act_, 4, "y of the sum");
    }
  }
}

TEST_P(RmsNormTest, NormalizesEachHeadOfWiderRows) {
  const int64_t tokens = 5, heads = 3, d = 64;
  const Tensor x =
      Upload(backend_.get(), act_, {tokens, heads * d}, RandomFloats(tokens * heads * d, 1));
  const Tensor weight = Upload(backend_.get(), DType::kFloat32, {d}, RandomFloats(d, 2));
  Tensor y = Empty(backend_.get(), act_, {tokens, heads * d});
  Tensor inv_rms = Empty(backend_.get(), DType::kFloat32, {tokens * heads});
  ops::RmsNormForward(backend_.get(), x, weight, kEps, &y, &inv_rms);
  ExpectClose(Values(y), RmsNorm(Values(x), Values(weight), kEps), act_, 4, "y");
}

TEST_P(RmsNormTest, ZeroRowsStayFinite) {
  const Tensor x = Upload(backend_.get(), act_, {2, 64}, std::vector<float>(128, 0.0f));
  const Tensor weight = Upload(backend_.get(), DType::kFloat32, {64}, RandomFloats(64, 2));
  Tensor y = Empty(backend_.get(), act_, {2, 64}), dx = Empty(backend_.get(), act_, {2, 64});
  Tensor inv_rms = Empty(backend_.get(), DType::kFloat32, {2});
  ops::RmsNormForward(backend_.get(), x, weight, kEps, &y, &inv_rms);
  for (double value : Values(y)) EXPECT_EQ(value, 0.0);
  ops::RmsNormBackward(backend_.get(), y, x, weight, inv_rms, false, &dx);
  for (double value : Values(dx)) EXPECT_EQ(value, 0.0);
}

INSTANTIATE_TEST_SUITE_P(Devices, RmsNormTest, testing::ValuesIn(DeviceCases()),
                         [](const auto& info) { return DeviceCaseName(info.param); });

}  // namespace
}  // namespace uniquanf
