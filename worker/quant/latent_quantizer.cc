#include "worker/quant/latent_quantizer.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "common/base/check.h"
#include "common/base/parallel.h"
#include "common/base/status.h"
#include "worker/quant/group_math.h"
#include "worker/quant/latent_quantizer_device.h"
#include "worker/quant/quantizer.h"

#ifdef UNIQUANF_HAVE_CUDA
#define UQ_DISPATCH(backend, call) ((backend)->kind() == DeviceKind::kCuda ? cuda::call : cpu::call)
#else
#define UQ_DISPATCH(backend, call) (cpu::call)
#endif

namespace uniquanf::quant {
namespace {

// A start this part of a cell away from its border has the stored code whatever rounds.
constexpr float kInside = 1.0f / 64;
// Keeps u finite for groups whose levels are all one.
constexpr float kMinLatentDelta = 1e-30f;

void CheckState(const Backend* backend, const LatentState& state) {
#ifndef UNIQUANF_HAVE_CUDA
  UQ_CHECK(backend->kind() == DeviceKind::kCpu);
#endif
  UQ_CHECK(state.bits >= kMinBits && state.bits <= kMaxBits);
  UQ_CHECK(state.latent.shape().size() == 2 && state.group_size >= 1);
  UQ_CHECK(state.num_inputs() % state.group_size == 0);
}

void CheckWeights(const Backend* backend, const LatentState& state, const Tensor& tensor) {
  CheckState(backend, state);
  UQ_CHECK(tensor.shape() == state.latent.shape());
  UQ_CHECK(tensor.dtype() == DType::kFloat32 ||
           (tensor.dtype() == DType::kBfloat16 && backend->kind() == DeviceKind::kCuda));
}

// One group's start: Δ, α and β in its units, and u.
void StartGroup(const UnifiedLinear& stored, int64_t group, const float* weight, float* delta,
                float* alpha, float* beta, float* u) {
  const int n = stored.bits, num_levels = 1 << n;
  const float* scales = stored.alpha.data() + group * n;
  const float shift = stored.shift[group];
  // The levels of a uniform grid of step Δ span (2^n − 1)Δ = 2 Σ|α*|.
  float sum = 0;
  for (int i = 0; i < n; ++i) sum += std::fabs(scales[i]);
  *delta = std::max(2 * sum / static_cast<float>(num_levels - 1), kMinLatentDelta);
  for (int i = 0; i < n; ++i) alpha[i] = scales[i] / *delta;
  *beta = shift / *delta;
  std::vector<std::pair<float, int>> levels(num_levels);
  for (int code = 0; code < num_levels; ++code) {
    float level = 0;
    for (int i = 0; i < n; ++i) level += (code >> (n - 1 - i)) & 1 ? -alpha[i] : alpha[i];
    levels[code] = {level, code};
  }
  std::sort(levels.begin(), levels.end());
  // Each code's cell, a little inside its borders.
  std::vector<std::pair<float, float>> cells(num_levels);
  for (int i = 0; i < num_levels; ++i) {
    const float level = levels[i].first;
    auto& [low, high] = cells[levels[i].second];
    low = i == 0 ? -INFINITY : level - (level - levels[i - 1].first) / 2 * (1 - kInside);
    high =
        i + 1 == num_levels ? INFINITY : level + (levels[i + 1].first - level) / 2 * (1 - kInside);
  }
  const int64_t g = stored.group_size;
  const uint8_t* codes = stored.codes.data() + group * g;
  for (int64_t k = 0; k < g; ++k) {
    const auto [low, high] = cells[codes[k]];
    u[k] = std::min(std::max((weight[k] - shift) / *delta, low), high);
  }
}

}  // namespace

uint64_t LatentStateBytes(int64_t num_outputs, int64_t num_inputs, int bits, int64_t group_size) {
  const uint64_t weights = static_cast<uint64_t>(num_outputs) * num_inputs;
  const uint64_t groups = weights / group_size;
  return weights * (3 * sizeof(float) + 1) + groups * (4 + 3 * bits) * sizeof(float);
}

absl::StatusOr<LatentState> StartLatents(Backend* backend, const UnifiedLinear& stored,
                                         const float* weight) {
  const int64_t n = stored.num_outputs, k = stored.num_inputs, g = stored.group_size;
  const int64_t groups_per_row = k / g, num_groups = n * groups_per_row;
  UQ_CHECK(static_cast<int64_t>(stored.codes.size()) == n * k);
  std::vector<float> u(n * k), delta(num_groups), alpha(num_groups * stored.bits), beta(num_groups);
  ParallelRanges(num_groups, std::max<int64_t>(1, 65536 / g), [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      StartGroup(stored, group, weight + group * g, &delta[group], &alpha[group * stored.bits],
                 &beta[group], &u[group * g]);
    }
  });
  LatentState state;
  state.bits = stored.bits;
  state.group_size = g;
  const Shape weights = {n, k}, groups = {n, groups_per_row},
              scales = {n, groups_per_row, stored.bits};
  const std::pair<Tensor*, std::pair<const Shape*, const float*>> given[] = {
      {&state.latent, {&weights, u.data()}},
      {&state.alpha, {&scales, alpha.data()}},
      {&state.beta, {&groups, beta.data()}},
      {&state.delta, {&groups, delta.data()}}};
  for (const auto& [tensor, source] : given) {
    UQ_ASSIGN_OR_RETURN(*tensor,
                        Tensor::FromFloats(backend, DType::kFloat32, *source.first, source.second));
  }
  const std::pair<Tensor*, const Shape*> moments[] = {
      {&state.m_latent, &weights}, {&state.v_latent, &weights}, {&state.m_alpha, &scales},
      {&state.v_alpha, &scales},   {&state.m_beta, &groups},    {&state.v_beta, &groups}};
  for (const auto& [tensor, shape] : moments) {
    UQ_ASSIGN_OR_RETURN(*tensor, Tensor::Allocate(backend, DType::kFloat32, *shape));
    UQ_RETURN_IF_ERROR(backend->FillZero(tensor->data(), tensor->size_bytes()));
  }
  UQ_ASSIGN_OR_RETURN(state.codes, Tensor::Allocate(backend, DType::kUint8, weights));
  UQ_RETURN_IF_ERROR(
      backend->CopyFromHost(state.codes.data(), stored.codes.data(), stored.codes.size()));
  return state;
}

void ForwardLatents(Backend* backend, LatentState* state, Tensor* w_hat) {
  CheckWeights(backend, *state, *w_hat);
  UQ_DISPATCH(backend, ForwardLatents(backend, state, w_hat));
}

absl::StatusOr<LatentGradients> NewLatentGradients(Backend* backend, const LatentState& state) {
  LatentGradients gradients;
  const std::pair<Tensor*, const Tensor*> arrays[] = {{&gradients.latent, &state.latent},
                                                      {&gradients.alpha, &state.alpha},
                                                      {&gradients.beta, &state.beta}};
  for (const auto& [gradient, parameter] : arrays) {
    UQ_ASSIGN_OR_RETURN(*gradient, Tensor::Allocate(backend, DType::kFloat32, parameter->shape()));
  }
  return gradients;
}

void BackwardLatents(Backend* backend, const LatentState& state, const Tensor& upstream,
                     LatentGradients* gradients) {
  CheckWeights(backend, state, upstream);
  UQ_DISPATCH(backend, BackwardLatents(backend, state, upstream, gradients));
}

void UpdateLatents(Backend* backend, const LatentStep& step, const Tensor& upstream,
                   LatentState* state, Tensor* w_hat) {
  CheckWeights(backend, *state, upstream);
  CheckWeights(backend, *state, *w_hat);
  UQ_DISPATCH(backend, UpdateLatents(backend, step, upstream, state, w_hat));
}

absl::StatusOr<UnifiedLinear> UnifyLatents(Backend* backend, const LatentState& state) {
  CheckState(backend, state);
  UnifiedLinear unified;
  unified.bits = state.bits;
  unified.num_outputs = state.num_outputs();
  unified.num_inputs = state.num_inputs();
  unified.group_size = state.group_size;
  UQ_ASSIGN_OR_RETURN(const std::vector<float> delta, state.delta.ToFloats());
  UQ_ASSIGN_OR_RETURN(unified.alpha, state.alpha.ToFloats());
  UQ_ASSIGN_OR_RETURN(unified.shift, state.beta.ToFloats());
  unified.codes.resize(state.codes.num_elements());
  UQ_RETURN_IF_ERROR(
      backend->CopyToHost(unified.codes.data(), state.codes.data(), unified.codes.size()));
  for (size_t group = 0; group < delta.size(); ++group) {
    unified.shift[group] *= delta[group];
    for (int i = 0; i < state.bits; ++i) unified.alpha[group * state.bits + i] *= delta[group];
  }
  return unified;
}

}  // namespace uniquanf::quant
