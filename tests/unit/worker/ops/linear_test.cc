#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/worker/ops/reference.h"

namespace uniquanf {
namespace {

using namespace reference;  // NOLINT: the whole file compares against it

// Rounding errors of a sum of n random terms walk about √n steps.
double Factor(int64_t num_terms) { return 4 + 0.5 * std::sqrt(static_cast<double>(num_terms)); }

class LinearTest : public testing::TestWithParam<DeviceCase> {
 protected:
  std::unique_ptr<Backend> backend_ = MakeBackend(GetParam().kind);
  DType act_ = GetParam().act;
};

struct Sizes {
  int64_t t, n, k;
};
// Around the sizes of pieces and of vectors, and a tall, a wide and a deep one.
constexpr Sizes kSizes[] = {{1, 8, 8},     {7, 64, 192},   {33, 40, 24},  {129, 512, 192},
                            {300, 72, 96}, {66, 1100, 16}, {40, 24, 1032}};

TEST_P(LinearTest, MatchesReference) {
  for (const Sizes& size : kSizes) {
    SCOPED_TRACE(testing::Message() << "T " << size.t << " N " << size.n << " K " << size.k);
    const auto [t, n, k] = size;
    const Tensor x = Upload(backend_.get(), act_, {t, k}, RandomFloats(t * k, 1));
    const Tensor w = Upload(backend_.get(), act_, {n, k}, RandomFloats(n * k, 2, 0.1));
    const Tensor dy = Upload(backend_.get(), act_, {t, n}, RandomFloats(t * n, 3));
    const Tensor bias = Upload(backend_.get(), DType::kFloat32, {n}, RandomFloats(n, 4));

    Tensor y = Empty(backend_.get(), act_, {t, n});
    ops::LinearForward(backend_.get(), x, w, nullptr, &y);
    ExpectClose(Values(y), Linear(Values(x), Values(w), {}, t, n, k), act_, 2, "y", Factor(k));
    y = Empty(backend_.get(), act_, {t, n});
    ops::LinearForward(backend_.get(), x, w, &bias, &y);
    ExpectClose(Values(y), Linear(Values(x), Values(w), Values(bias), t, n, k), act_, 2,
                "y with bias", Factor(k));

    const Vector expected_dx = LinearInputGradient(Values(dy), Values(w), t, n, k);
    Tensor dx = Empty(backend_.get(), act_, {t, k});
    ops::LinearBackwardInput(backend_.get(), dy, w, false, &dx);
    ExpectClose(Values(dx), expected_dx, act_, 2, "dx", Factor(n));
    const Tensor before = Upload(backend_.get(), act_, {t, k}, RandomFloats(t * k, 5));
    dx = Upload(backend_.get(), act_, {t, k}, RandomFloats(t * k, 5));
    ops::LinearBackwardInput(backend_.get(), dy, w, true, &dx);
    Vector sum = Values(before);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += expected_dx[i];
    ExpectClose(Values(dx), sum, act_, 2, "accumulated dx", Factor(n));

    Tensor dw = Empty(backend_.get(), act_, {n, k});
    ops::LinearBackwardWeight(backend_.get(), dy, x, /*accumulate=*/false, &dw);
    const Vector expected_dw = LinearWeightGradient(Values(dy), Values(x), t, n, k);
    ExpectClose(Values(dw), expected_dw, act_, 2, "dw", Factor(t));

    // A sum over micro-batches, in float32 whatever the activations are.
    Tensor dw_sum = Empty(backend_.get(), DType::kFloat32, {n, k});
    Vector expected_sum(expected_dw.size());
    for (int part = 1; part <= 3; ++part) {
      ops::LinearBackwardWeight(backend_.get(), dy, x, /*accumulate=*/part > 1, &dw_sum);
      for (size_t i = 0; i < expected_sum.size(); ++i) expected_sum[i] += expected_dw[i];
      ExpectClose(Values(dw_sum), expected_sum, DType::kFloat32, 2, "accumulated dw", Factor(t));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, LinearTest, testing::ValuesIn(DeviceCases()),
                         [](const auto& info) { return DeviceCaseName(info.param); });

}  // namespace
}  // namespace uniquanf
