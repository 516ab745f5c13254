#include "tests/unit/worker/packed/packed_fixture.h"

#include <cmath>
#include <limits>
#include <random>

#include "common/safetensors/float_conversion.h"

namespace uniquanf::packed {

PackedLinear RandomLayer(const Shape4& shape, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  UnifiedLinear unified;
  unified.bits = shape.bits;
  unified.num_outputs = shape.num_outputs;
  unified.num_inputs = shape.num_inputs;
  unified.group_size = shape.group_size;
  const int64_t count = shape.num_outputs * shape.num_inputs, groups = count / shape.group_size;
  for (int64_t i = 0; i < count; ++i) {
    unified.codes.push_back(static_cast<uint8_t>(generator() >> (64 - shape.bits)));
  }
  for (int64_t i = 0; i < groups * shape.bits; ++i) unified.alpha.push_back(normal(generator));
  for (int64_t i = 0; i < groups; ++i) unified.shift.push_back(normal(generator));
  return Pack(unified);
}

std::vector<float> RandomInputs(int64_t count, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = Bfloat16ToFloat(FloatToBfloat16(normal(generator)));
  return values;
}

Expected Reference(const PackedLinear& layer, int bits, const std::vector<uint16_t>& alpha,
                   const std::vector<uint16_t>& beta, const std::vector<float>& x) {
  const int64_t N = layer.num_outputs, K = layer.num_inputs, tokens = x.size() / K;
  Expected expected;
  expected.y.assign(tokens * N, 0.0);
  expected.magnitude.assign(tokens * N, 0.0);
  std::vector<double> weight(K), size(K);
  for (int64_t r = 0; r < N; ++r) {
    for (int64_t k = 0; k < K; ++k) {
      const int64_t group = k / layer.group_size;
      const double b = Float16ToFloat(beta[group * N + r]);
      weight[k] = b, size[k] = std::abs(b);
      for (int i = 0; i < bits; ++i) {
        const double a = Float16ToFloat(alpha[(group * bits + i) * N + r]);
        const auto word = static_cast<uint32_t>(layer.qweight[(k / 32 * layer.bits + i) * N + r]);
        weight[k] += (word >> (k % 32)) & 1u ? a : -a;
        size[k] += std::abs(a);
      }
    }
    for (int64_t t = 0; t < tokens; ++t) {
      double y = 0, magnitude = 0;
      for (int64_t k = 0; k < K; ++k) {
        y += weight[k] * x[t * K + k];
        magnitude += size[k] * std::abs(x[t * K + k]);
      }
      expected.y[t * N + r] = y, expected.magnitude[t * N + r] = magnitude;
    }
  }
  return expected;
}

int64_t FirstWrong(const std::vector<float>& y, const Expected& expected, DType dtype,
                   int64_t num_inputs) {
  // Sums of K f32 terms in random order err by about √K units; bf16 operands and results by one of
  // theirs, which random signs average.
  const double f32 = std::numeric_limits<float>::epsilon() * std::sqrt(double(num_inputs));
  const double relative = dtype == DType::kBfloat16 ? std::ldexp(1.0, -8) : 0.0;
  const double spread = relative / std::sqrt(double(num_inputs)) * 6;
  for (size_t i = 0; i < expected.y.size(); ++i) {
    const double bound =
        (f32 + spread) * expected.magnitude[i] + relative * std::abs(expected.y[i]);
    if (!(std::abs(y[i] - expected.y[i]) <= bound)) return static_cast<int64_t>(i);
  }
  return y.size() == expected.y.size() ? -1 : 0;
}

}  // namespace uniquanf::packed
