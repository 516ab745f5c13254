#include "worker/quant/uniform_grids.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/parallel.h"
#include "common/base/status.h"
#include "worker/quant/group_math.h"

namespace uniquanf::quant {
namespace {

constexpr int kNumClips = 25;  // 1, 0.975, … 0.4
float Clip(int i) { return 1 - 0.025f * static_cast<float>(i); }

// Σ m (|w − ŵ| / Δ0)^2.4, the exponent of GPTQ's search and of UniQuanF's: below 2 bits' coarse
// steps, squares clip too much.
UQ_VECTOR_CLONES float WeightedError(const UniformGrid& grid, float unit, float last_code,
                                     const float* w, const float* m, int64_t count) {
  constexpr float kErrorPower = 2.4f, kLeastError = 1.17549435e-38f;
  float lanes[kLanes] = {};
  const auto term = [&](int64_t k) __attribute__((always_inline)) {
    const float error = std::fabs(w[k] - grid.Value(grid.Code(w[k], last_code))) / unit;
    return m[k] * PortableExp(kErrorPower * PortableLog(std::max(error, kLeastError)));
  };
  int64_t k = 0;
  for (; k + kLanes <= count; k += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += term(k + lane);
  }
  for (; k < count; ++k) lanes[0] += term(k);
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

// A step of few enough digits that fp16 holds Δ/2 times each odd number below 2^n, so that scales
// and shift are stored without rounding; where that is fine enough.
float RoundStep(float delta, int bits) {
  constexpr int kFloat16Digits = 11, kMostBits = 5;
  if (bits > kMostBits) return delta;
  int exponent = 0;
  const float digits = std::ldexp(std::frexp(delta, &exponent), kFloat16Digits - bits);
  return std::ldexp(std::nearbyint(digits), exponent - (kFloat16Digits - bits));
}

UniformGrid FindGrid(const float* w, const float* m, int64_t count, int bits, Levels levels,
                     bool search) {
  const float last_code = static_cast<float>((1 << bits) - 1);
  const auto [low, high] = std::minmax_element(w, w + count);
  const float min = std::min(*low, 0.0f), max = std::max(*high, 0.0f);
  const float least =
      std::max(kMinDelta, kMinDeltaPerMagnitude * std::max(-min, max));  // as everywhere
  UniformGrid whole = {};
  if (levels == Levels::kSymmetric) {
    whole.zero_point = std::ldexp(1.0f, bits - 1);
    whole.delta = std::max({max / (last_code - whole.zero_point), -min / whole.zero_point, least});
  } else {
    whole.delta = std::max(max / last_code - min / last_code, least);
    whole.zero_point = std::clamp(std::nearbyint(-min / whole.delta), 0.0f, last_code);
  }
  if (levels != Levels::kAny) whole.delta = RoundStep(whole.delta, bits);
  if (!search) return whole;
  UniformGrid best = whole;
  float least_error = WeightedError(whole, whole.delta, last_code, w, m, count);
  for (int i = 1; i < kNumClips; ++i) {
    UniformGrid grid = {whole.delta * Clip(i), whole.zero_point};
    if (levels != Levels::kAny) grid.delta = RoundStep(grid.delta, bits);
    const float error = WeightedError(grid, whole.delta, last_code, w, m, count);
    if (error < least_error) {
      least_error = error;
      best = grid;
    }
  }
  return best;
}

}  // namespace

std::vector<UniformGrid> FindGrids(const std::vector<float>& weights, int64_t num_inputs, int bits,
                                   int64_t group_size, Levels levels, bool search,
                                   const std::vector<float>& importance) {
  const std::vector<float> ones(importance.empty() ? num_inputs : 0, 1.0f);
  const std::vector<float>& m = importance.empty() ? ones : importance;
  const auto num_groups = static_cast<int64_t>(weights.size()) / group_size;
  std::vector<UniformGrid> grids(num_groups);
  ParallelRanges(num_groups, std::max<int64_t>(1, 16384 / group_size),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t group = begin; group < end; ++group) {
                     const int64_t first = group * group_size;
                     grids[group] = FindGrid(weights.data() + first, m.data() + first % num_inputs,
                                             group_size, bits, levels, search);
                   }
                 });
  return grids;
}

absl::Status SetGrids(const std::vector<UniformGrid>& grids, const std::vector<float>& weights,
                      std::vector<uint8_t> codes, QuantizerState* state) {
  const int n = state->bits;
  const auto num_groups = static_cast<int64_t>(grids.size());
  std::vector<float> log_delta(num_groups), zero_point(num_groups), alpha(num_groups * n);
  for (int64_t group = 0; group < num_groups; ++group) {
    log_delta[group] = static_cast<float>(std::log(static_cast<double>(grids[group].delta)));
    zero_point[group] = grids[group].zero_point;
    for (int i = 0; i < n; ++i) alpha[group * n + i] = -std::ldexp(0.5f, n - 1 - i);
  }
  if (codes.empty()) {
    codes.resize(weights.size());
    const float last_code = static_cast<float>((1 << n) - 1);
    ParallelRanges(num_groups, std::max<int64_t>(1, 16384 / state->group_size),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t i = begin * state->group_size; i < end * state->group_size; ++i) {
                       codes[i] = static_cast<uint8_t>(
                           grids[i / state->group_size].Code(weights[i], last_code));
                     }
                   });
  }
  UQ_RETURN_IF_ERROR(state->log_delta.CopyFromFloats(log_delta.data()));
  UQ_RETURN_IF_ERROR(state->zero_point.CopyFromFloats(zero_point.data()));
  UQ_RETURN_IF_ERROR(state->alpha.CopyFromFloats(alpha.data()));
  Backend* const backend = state->weight.backend();
  for (Tensor* zero : {&state->shift, &state->log_scale_group, &state->log_scale_weight}) {
    UQ_RETURN_IF_ERROR(backend->FillZero(zero->data(), zero->size_bytes()));
  }
  return backend->CopyFromHost(state->codes.data(), codes.data(), codes.size());
}

absl::Status StartOnGrids(Levels levels, bool search, const std::vector<float>& importance,
                          QuantizerState* state) {
  UQ_ASSIGN_OR_RETURN(const std::vector<float> weights, state->weight.ToFloats());
  return SetGrids(FindGrids(weights, state->num_inputs(), state->bits, state->group_size, levels,
                            search, importance),
                  weights, {}, state);
}

}  // namespace uniquanf::quant
