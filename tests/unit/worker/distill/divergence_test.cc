// The loss at the head and norms' gradients against double precision and finite differences.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/unit/worker/ops/ops_fixture.h"

namespace uniquanf {
namespace {

using namespace reference;  // NOLINT: the whole file compares against it

class DivergenceTest : public OpsTest {};

// z of a logit.
double Capped(const ops::LogitShape& shape, double logit) {
  const double z = shape.scale * logit;
  return shape.softcap == 0 ? z : shape.softcap * std::tanh(z / shape.softcap);
}

// KL(softmax(target) ‖ softmax(logits)) of one row.
double RowKl(const ops::LogitShape& shape, const double* target, const double* logits,
             int64_t width) {
  double p_sum = 0, q_sum = 0, kl = 0;
  for (int64_t i = 0; i < width; ++i) {
    p_sum += std::exp(Capped(shape, target[i]));
    q_sum += std::exp(Capped(shape, logits[i]));
  }
  for (int64_t i = 0; i < width; ++i) {
    const double log_p = Capped(shape, target[i]) - std::log(p_sum);
    const double log_q = Capped(shape, logits[i]) - std::log(q_sum);
    kl += std::exp(log_p) * (log_p - log_q);
  }
  return kl;
}

TEST_P(DivergenceTest, ChunksOfTheVocabularyMakeTheWholeAndItsGradient) {
  const int64_t rows = 3;
  for (const ops::LogitShape shape :
       {ops::LogitShape{1, 0}, ops::LogitShape{0.25f, 0}, ops::LogitShape{1.5f, 5}}) {
    for (const int64_t width : {1, 5, 40, 2100}) {
      for (const int64_t piece : {width, (width + 2) / 3}) {
        SCOPED_TRACE(testing::Message() << width << " in pieces of " << piece << ", scale "
                                        << shape.scale << ", cap " << shape.softcap);
        const std::vector<float> target = RandomFloats(rows * width, 1, 3.0);
        const std::vector<float> logits = RandomFloats(rows * width, 2, 3.0);
        const float factor = 0.7f;
        Tensor target_sums = Empty(backend_.get(), DType::kFloat32, {rows, 2});
        Tensor sums = Empty(backend_.get(), DType::kFloat32, {rows, 2});
        Tensor kl = Empty(backend_.get(), DType::kFloat32, {rows});
        const auto part = [&](const std::vector<float>& all, int64_t first, int64_t count) {
          std::vector<float> values;
          for (int64_t t = 0; t < rows; ++t) {
            const float* row = all.data() + t * width + first;
            values.insert(values.end(), row, row + count);
          }
          return Upload(backend_.get(), DType::kFloat32, {rows, count}, values);
        };
        for (int64_t first = 0; first < width; first += piece) {
          const int64_t count = std::min(piece, width - first);
          ops::LogitSums(backend_.get(), shape, part(target, first, count), first == 0,
                         &target_sums);
          ops::LogitSums(backend_.get(), shape, part(logits, first, count), first == 0, &sums);
        }
        Vector gradient(rows * width);
        for (int64_t first = 0; first < width; first += piece) {
          const int64_t count = std::min(piece, width - first);
          Tensor dlogits = Empty(backend_.get(), act_, {rows, count});
          ops::KlDivergence(backend_.get(), shape, part(target, first, count), target_sums,
                            part(logits, first, count), sums, factor, first == 0, &dlogits, &kl);
          const Vector values = Values(dlogits);
          for (int64_t t = 0; t < rows; ++t) {
            for (int64_t i = 0; i < count; ++i) {
              gradient[t * width + first + i] = values[t * count + i];
            }
          }
        }
        const Vector t64(target.begin(), target.end()), l64(logits.begin(), logits.end());
        const Vector values = Values(kl);
        const double tolerance = act_ == DType::kBfloat16 ? 4e-3 : 2e-6;
        for (int64_t t = 0; t < rows; ++t) {
          const double expected_kl = RowKl(shape, &t64[t * width], &l64[t * width], width);
          EXPECT_NEAR(values[t], expected_kl, 1e-5 * (1 + expected_kl));
          Vector row(l64.begin() + t * width, l64.begin() + (t + 1) * width);
          for (int64_t i = 0; i<width; i += width> 100 ? 97 : 1) {
            const double step = 1e-5, here = row[i];
            row[i] = here + step;
            const double up = RowKl(shape, &t64[t * width], row.data(), width);
            row[i] = here - step;
            const double down = RowKl(shape, &t64[t * width], row.data(), width);
            row[i] = here;
            const double expected = factor * (up - down) / (2 * step);
            ASSERT_NEAR(gradient[t * width + i], expected, tolerance * (std::abs(expected) + 0.1));
          }
        }
      }
    }
  }
}

TEST_P(DivergenceTest, EqualDistributionsDivergeByNothing) {
  const Tensor logits = Floats({4, 1000}, 3, 8.0);
  Tensor sums = Empty(backend_.get(), DType::kFloat32, {4, 2});
  Tensor dlogits = Empty(backend_.get(), act_, {4, 1000});
  Tensor kl = Empty(backend_.get(), DType::kFloat32, {4});
  ops::LogitSums(backend_.get(), {}, logits, true, &sums);
  ops::KlDivergence(backend_.get(), {}, logits, sums, logits, sums, 1.0f, true, &dlogits, &kl);
  for (const double value : Values(kl)) EXPECT_EQ(value, 0);
  for (const double value : Values(dlogits)) EXPECT_EQ(value, 0);
}

TEST_P(DivergenceTest, NormWeightsHaveTheGradientOfTheirForwardPass) {
  struct Case {
    int64_t rows, width, weight_rows;
    bool center;
  };
  for (const Case& c :
       {Case{5, 8, 1, false}, {6, 8, 3, false}, {7, 33, 1, true}, {70, 100, 2, true}}) {
    SCOPED_TRACE(testing::Message() << c.rows << " rows of " << c.width);
    const int64_t rows = c.rows * c.weight_rows;
    const Tensor x = Random({c.rows, c.weight_rows * c.width}, 1);
    const Tensor dy = Random({c.rows, c.weight_rows * c.width}, 2);
    const Tensor weight = Floats({c.weight_rows * c.width}, 3);
    Tensor y = Like(x);
    Tensor stats = Empty(backend_.get(), DType::kFloat32, {rows, 2});
    const ops::NormShape shape = {c.center, c.width, 1e-5f};
    ops::NormForward(backend_.get(), shape, x, &weight, nullptr, &y, &stats);
    Tensor dweight = Empty(backend_.get(), DType::kFloat32, {c.weight_rows * c.width});
    ops::NormBackwardWeight(backend_.get(), shape, dy, x, stats, false, &dweight);
    const Vector once = Values(dweight);
    const Vector xs = Values(x), dys = Values(dy);
    Vector expected(c.weight_rows * c.width, 0.0);
    for (int64_t r = 0; r < rows; ++r) {
      double mean = 0, squares = 0;
      const double* row = &xs[r * c.width];
      for (int64_t i = 0; i < c.width && c.center; ++i) mean += row[i] / c.width;
      for (int64_t i = 0; i < c.width; ++i) squares += (row[i] - mean) * (row[i] - mean) / c.width;
      for (int64_t i = 0; i < c.width; ++i) {
        expected[r % c.weight_rows * c.width + i] +=
            dys[r * c.width + i] * (row[i] - mean) / std::sqrt(squares + 1e-5);
      }
    }
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(once[i], expected[i], 2e-4);
    ops::NormBackwardWeight(backend_.get(), shape, dy, x, stats, true, &dweight);
    const Vector twice = Values(dweight);
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(twice[i], 2 * once[i], 1e-4);
    // The plain RMS norm keeps the inverse alone.
    if (c.center || c.weight_rows > 1) continue;
    Tensor inverse = Empty(backend_.get(), DType::kFloat32, {rows});
    ops::RmsNormForward(backend_.get(), x, weight, 1e-5f, &y, &inverse);
    ops::NormBackwardWeight(backend_.get(), shape, dy, x, inverse, false, &dweight);
    const Vector plain = Values(dweight);
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(plain[i], expected[i], 2e-4);
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, DivergenceTest, testing::ValuesIn(DeviceCases()),
                         [](const auto& info) { return DeviceCaseName(info.param); });

}  // namespace
}  // namespace uniquanf
