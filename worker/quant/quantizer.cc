#include "worker/quant/quantizer.h"

#include <utility>

#include "common/base/check.h"
#include "common/base/status.h"
#include "worker/quant/group_math.h"
#include "worker/quant/quantizer_cpu.h"
#ifdef UNIQUANF_HAVE_CUDA
#include "worker/quant/quantizer_cuda.h"
#endif

// Calls the function of the backend's kind.
#ifdef UNIQUANF_HAVE_CUDA
#define UQ_DISPATCH(backend, call) ((backend).kind() == DeviceKind::kCuda ? cuda::call : cpu::call)
#else
#define UQ_DISPATCH(backend, call) (cpu::call)
#endif

namespace uniquanf::quant {
namespace {

uint64_t ScratchBytes(const Backend& backend, int64_t num_outputs, int64_t num_inputs, int bits,
                      int64_t group_size) {
  return UQ_DISPATCH(backend, ScratchBytes(num_outputs, num_inputs, bits, group_size));
}

void CheckState(const Backend& backend, const QuantizerState& state) {
#ifndef UNIQUANF_HAVE_CUDA
  UQ_CHECK(backend.kind() == DeviceKind::kCpu);
#endif
  UQ_CHECK(state.bits >= kMinBits && state.bits <= kMaxBits);
  UQ_CHECK(state.weight.shape().size() == 2 && state.group_size >= 1);
  UQ_CHECK(state.num_inputs() % state.group_size == 0);
  UQ_CHECK(backend.kind() == DeviceKind::kCuda || state.weight.dtype() == DType::kFloat32);
}

void CheckLikeWeight(const QuantizerState& state, const Tensor& tensor) {
  UQ_CHECK(tensor.shape() == state.weight.shape() && tensor.dtype() == state.weight.dtype());
}

}  // namespace

Mapping MappingForPass(int64_t count, int period) {
  UQ_CHECK(count >= 1 && period >= 1);
  if (count == 1) return Mapping::kDirect;
  return count % period == 0 ? Mapping::kLocal : Mapping::kKeep;
}

absl::StatusOr<QuantizerState> NewQuantizerState(Backend* backend, Tensor weight, int bits,
                                                 int64_t group_size, TrainedParts trained,
                                                 OptimizerState optimizer_state) {
  QuantizerState state;
  state.optimizer_state = optimizer_state;
  state.bits = bits;
  state.group_size = group_size;
  state.weight = std::move(weight);
  state.trained = trained;
  CheckState(*backend, state);
  const int64_t n = state.num_outputs(), k = state.num_inputs(), groups = state.groups_per_row();
  const Shape group_shape = {n, groups}, weight_shape = {n, k}, alpha_shape = {n, groups, bits};
  const DType moment = state.packs_codes() ? DType::kBfloat16 : DType::kFloat32;
  const std::pair<Tensor*, const Shape*> arrays[] = {
      {&state.log_delta, &group_shape},
      {&state.log_scale_group, &group_shape},
      {&state.log_scale_weight, &weight_shape},
      {&state.alpha, &alpha_shape},
      {&state.zero_point, &group_shape},
      {&state.shift, &group_shape},
      {&state.m_log_delta, &group_shape},
      {&state.v_log_delta, &group_shape},
      {&state.m_log_scale_group, &group_shape},
      {&state.v_log_scale_group, &group_shape},
      {&state.m_log_scale_weight, &weight_shape},
      {&state.v_log_scale_weight, &weight_shape},
      {&state.m_alpha, &alpha_shape},
      {&state.v_alpha, &alpha_shape},
  };
  for (const auto& [tensor, shape] : arrays) {
    const bool is_moment =
        tensor == &state.m_log_scale_weight || tensor == &state.v_log_scale_weight;
    UQ_ASSIGN_OR_RETURN(*tensor,
                        Tensor::Allocate(backend, is_moment ? moment : DType::kFloat32, *shape));
    UQ_RETURN_IF_ERROR(backend->FillZero(tensor->data(), tensor->size_bytes()));
  }
  if (!state.packs_codes()) {
    UQ_ASSIGN_OR_RETURN(state.codes, Tensor::Allocate(backend, DType::kUint8, weight_shape));
    UQ_RETURN_IF_ERROR(backend->FillZero(state.codes.data(), state.codes.size_bytes()));
  }
  const int64_t scratch_bytes =
      static_cast<int64_t>(ScratchBytes(*backend, n, k, bits, group_size));
  UQ_ASSIGN_OR_RETURN(state.scratch, Tensor::Allocate(backend, DType::kUint8, {scratch_bytes}));
  return state;
}

uint64_t QuantizerStateBytes(const Backend& backend, int64_t num_outputs, int64_t num_inputs,
                             int bits, int64_t group_size, OptimizerState optimizer_state) {
  const uint64_t weights = static_cast<uint64_t>(num_outputs) * num_inputs;
  const uint64_t groups = weights / group_size;
  // Per weight: s2, its two moments and the code. Per group: log Δ and s3 with two moments each,
  // z_U, z_B, and α with two moments.
  const uint64_t weight_bytes = optimizer_state == OptimizerState::kBf16
                                    ? sizeof(float) + 2 * DTypeBytes(DType::kBfloat16)
                                    : 3 * sizeof(float) + 1;
  return weights * weight_bytes + groups * (8 + 3 * bits) * sizeof(float) +
         ScratchBytes(backend, num_outputs, num_inputs, bits, group_size);
}

void InitializeUnified(Backend* backend, const InitOptions& options, QuantizerState* state) {
  CheckState(*backend, *state);
  UQ_CHECK(options.grid_steps >= 0 && options.alternating_rounds >= 0);
  UQ_DISPATCH(*backend, InitializeUnified(backend, options, state));
}

void InitializeUniform(Backend* backend, const InitOptions& options, QuantizerState* state) {
  CheckState(*backend, *state);
  UQ_CHECK(options.grid_steps >= 0);
  UQ_DISPATCH(*backend, InitializeUniform(backend, options, state));
}

void InitializeAlternating(Backend* backend, const InitOptions& options, QuantizerState* state) {
  CheckState(*backend, *state);
  UQ_CHECK(options.alternating_rounds >= 0);
  UQ_DISPATCH(*backend, InitializeAlternating(backend, options, state));
}

void Forward(Backend* backend, Mapping mapping, QuantizerState* state, Tensor* w_hat) {
  CheckState(*backend, *state);
  CheckLikeWeight(*state, *w_hat);
  UQ_DISPATCH(*backend, Forward(backend, mapping, state, w_hat));
}

absl::StatusOr<Gradients> NewGradients(Backend* backend, const QuantizerState& state) {
  Gradients gradients;
  const std::pair<Tensor*, const Tensor*> arrays[] = {
      {&gradients.log_delta, &state.log_delta},
      {&gradients.log_scale_group, &state.log_scale_group},
      {&gradients.log_scale_weight, &state.log_scale_weight},
      {&gradients.alpha, &state.alpha},
  };
  for (const auto& [gradient, parameter] : arrays) {
    UQ_ASSIGN_OR_RETURN(*gradient, Tensor::Allocate(backend, DType::kFloat32, parameter->shape()));
  }
  return gradients;
}

void Backward(Backend* backend, const QuantizerState& state, const Tensor& upstream,
              Gradients* gradients) {
  CheckState(*backend, state);
  CheckLikeWeight(state, upstream);
  UQ_CHECK(gradients->log_delta.shape() == state.log_delta.shape());
  UQ_CHECK(gradients->log_scale_group.shape() == state.log_scale_group.shape());
  UQ_CHECK(gradients->log_scale_weight.shape() == state.log_scale_weight.shape());
  UQ_CHECK(gradients->alpha.shape() == state.alpha.shape());
  UQ_DISPATCH(*backend, Backward(backend, state, upstream, gradients));
}

void UpdateAndForward(Backend* backend, const ops::StepParams* params, const Tensor& upstream,
                      QuantizerState* state, Tensor* w_hat) {
  CheckState(*backend, *state);
  CheckLikeWeight(*state, upstream);
  CheckLikeWeight(*state, *w_hat);
  UQ_DISPATCH(*backend, UpdateAndForward(backend, params, upstream, state, w_hat));
}

absl::StatusOr<std::vector<uint8_t>> CodesOf(Backend* backend, const QuantizerState& state) {
  CheckState(*backend, state);
  std::vector<uint8_t> codes(state.weight.num_elements());
  if (!state.packs_codes()) {
    UQ_RETURN_IF_ERROR(backend->CopyToHost(codes.data(), state.codes.data(), codes.size()));
    return codes;
  }
  UQ_ASSIGN_OR_RETURN(Tensor unpacked,
                      Tensor::Allocate(backend, DType::kUint8, state.weight.shape()));
  UQ_DISPATCH(*backend, UnpackCodes(backend, state, &unpacked));
  UQ_RETURN_IF_ERROR(backend->CopyToHost(codes.data(), unpacked.data(), codes.size()));
  return codes;
}

absl::StatusOr<UnifiedLinear> Unify(Backend* backend, const QuantizerState& state) {
  CheckState(*backend, state);
  UnifiedLinear unified;
  unified.bits = state.bits;
  unified.num_outputs = state.num_outputs();
  unified.num_inputs = state.num_inputs();
  unified.group_size = state.group_size;
  UQ_ASSIGN_OR_RETURN(std::vector<float> log_delta, state.log_delta.ToFloats());
  UQ_ASSIGN_OR_RETURN(std::vector<float> zero_point, state.zero_point.ToFloats());
  UQ_ASSIGN_OR_RETURN(unified.alpha, state.alpha.ToFloats());
  UQ_ASSIGN_OR_RETURN(unified.shift, state.shift.ToFloats());
  UQ_ASSIGN_OR_RETURN(unified.codes, CodesOf(backend, state));
  const float half_range = static_cast<float>((1 << state.bits) - 1) / 2;
  for (size_t group = 0; group < log_delta.size(); ++group) {
    const float delta = ExpScale(log_delta[group]);
    unified.shift[group] = delta * (unified.shift[group] + half_range - zero_point[group]);
    for (int i = 0; i < state.bits; ++i) unified.alpha[group * state.bits + i] *= delta;
  }
  return unified;
}

void WriteStored(Backend* backend, const StoredCodes& stored, const Tensor& alpha,
                 const Tensor& beta, Tensor* out) {
  UQ_CHECK(stored.bits >= kMinBits && stored.bits <= kMaxBits && stored.group_size >= 1);
  UQ_CHECK(out->shape() == stored.codes->shape());
  const int64_t num_groups = stored.num_outputs() * stored.groups_per_row();
  UQ_CHECK(alpha.num_elements() == num_groups * stored.bits && beta.num_elements() == num_groups);
  UQ_DISPATCH(*backend, WriteStored(backend, stored, alpha, beta, out));
}

}  // namespace uniquanf::quant
