// The UniQuanF quantizer of one linear layer: state, forward (transform, mapping, level), backward
// with straight-through estimator and gradient filtering, fused with Adam. Park et al., ACL 2025
// (arXiv 2506.03781), section 3; the formulas are spelled out in worker/quant/README.md.
//
// Same recipe as worker/ops: this header has no build flags; quantizer.cc checks and dispatches;
// quantizer_cpu.cc and quantizer_cuda.cu compute. Reductions are deterministic.
// Shapes: weight [N, K]; g = group size (columns), Gr = K/g groups a row; group arrays [N, Gr] f32;
// alpha [N, Gr, n] f32; log_scale_weight (s2) [N, K] f32; codes [N, K] u8, or in the lowest bits of
// s2 (compact_state.h).
// Thread safety: as Backend. Errors: bugs CHECK-fail; allocation failures are returned.
#ifndef UNIQUANF_WORKER_QUANT_QUANTIZER_H_
#define UNIQUANF_WORKER_QUANT_QUANTIZER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/artifact/unified_linear.h"
#include "common/spec/quantization_spec.h"
#include "worker/backend/backend.h"
#include "worker/backend/tensor.h"
#include "worker/ops/op.h"

namespace uniquanf::quant {

inline constexpr int kMinBits = 2;
inline constexpr int kMaxBits = 8;

// How a forward pass finds codes (ops::StepParams::mapping).
enum class Mapping : int32_t {
  kKeep = 0,    // keep the codes; only their levels move
  kLocal = 1,   // nearest among {c−1, c, c+1} clipped to the range, ties to the first
  kDirect = 2,  // nearest of all 2^n levels, ties to the lower code
};
// The mapping of forward pass `count` (from 1) with period p: the first is direct, then local when
// count mod p = 0.
Mapping MappingForPass(int64_t count, int period);

// Which parameters are trained and how levels are laid out (method switches of the spec).
struct TrainedParts {
  bool uniform = true;  // log Δ, s2, s3
  bool binary = true;   // α; false keeps FlexRound's equally spaced levels
};

struct QuantizerState {
  int bits = 0;            // n
  int64_t group_size = 0;  // g, 1..K
  Tensor weight;           // [N, K] act: the original weights (never changed)
  // Trained.
  Tensor log_delta;         // [N, Gr] log Δ
  Tensor log_scale_group;   // [N, Gr] s3
  Tensor log_scale_weight;  // [N, K]  s2; with packs_codes() each holds its code
  Tensor alpha;             // [N, Gr, n]
  // Fixed after initialization.
  Tensor zero_point;  // [N, Gr] z_U
  Tensor shift;       // [N, Gr] z_B
  Tensor codes;       // [N, K] u8; empty with packs_codes()
  // Adam's first and second moments, shaped like what they belong to: f32, those of s2 bf16 with
  // packs_codes().
  Tensor m_log_delta, v_log_delta, m_log_scale_group, v_log_scale_group;
  Tensor m_log_scale_weight, v_log_scale_weight, m_alpha, v_alpha;
  TrainedParts trained;
  float learning_rate_scale = 1;  // both rates are multiplied by it
  OptimizerState optimizer_state = OptimizerState::kF32;
  uint32_t rounding_seed = 0;  // of this layer's moments (compact_state.h)
  // Device scratch the update may use; allocated with the state.
  Tensor scratch;

  int64_t num_outputs() const { return weight.dim(0); }
  int64_t num_inputs() const { return weight.dim(1); }
  int64_t groups_per_row() const { return num_inputs() / group_size; }
  bool packs_codes() const { return optimizer_state == OptimizerState::kBf16; }
};

// Allocates a state for `weight` (taken over), moments zero, s2 = s3 = 0, everything else undefined
// until Initialize. REQUIRES: group_size divides K.
absl::StatusOr<QuantizerState> NewQuantizerState(
    Backend* backend, Tensor weight, int bits, int64_t group_size, TrainedParts trained,
    OptimizerState optimizer_state = OptimizerState::kF32);
// Device bytes NewQuantizerState allocates without the weight; for planning.
uint64_t QuantizerStateBytes(const Backend& backend, int64_t num_outputs, int64_t num_inputs,
                             int bits, int64_t group_size,
                             OptimizerState optimizer_state = OptimizerState::kF32);
// The codes [N, K], on the host.
absl::StatusOr<std::vector<uint8_t>> CodesOf(Backend* backend, const QuantizerState& state);

struct InitOptions {
  int grid_steps = 1;           // G; 0: no search, and the shift z_B is fitted
  int alternating_rounds = 15;  // T
};
// The smallest step a group may get. The first term is the paper's; the second keeps w/Δ finite
// for constant groups of huge weights.
inline constexpr float kMinDelta = 1e-8f;
inline constexpr float kMinDeltaPerMagnitude = 0x1p-96f;  // Δ0 ≥ this · max|w|
// Unified initialization: sets log_delta, zero_point, alpha, shift; s2 = s3 = 0; codes to the
// direct mapping's. Finite for every |w| <= 1e38 (constant rows included).
void InitializeUnified(Backend* backend, const InitOptions& options, QuantizerState* state);
// FlexRound / round to nearest: min-max Δ with the same grid search but uniform levels; z_U rounded
// to the nearest code, so that zero weights stay zero; z_B = 0; α_i = −2^(n−1−i)/2, so that the
// levels are L(c) = −(2^n − 1)/2 + c (equally spaced); codes = clip(round(w/Δ) + z_U).
void InitializeUniform(Backend* backend, const InitOptions& options, QuantizerState* state);
// Plain BCQ by alternating update on w itself (method "alternating"): z_U = (2^n − 1)/2, fitted
// shift z_B, α from the update. Δ is the group's min-max step, not 1, only so that fp32 keeps its
// precision in w/Δ + z_U for small weights and sums do not overflow for large ones; Unify folds it.
void InitializeAlternating(Backend* backend, const InitOptions& options, QuantizerState* state);

// w_hat[N, K] act = quantized weight under `mapping`; codes are updated unless kKeep.
void Forward(Backend* backend, Mapping mapping, QuantizerState* state, Tensor* w_hat);

// Gradients as README.md states, for tests and small uses; the codes are those of the last Forward.
// upstream [N, K] act; outputs f32 shaped like the parameters.
struct Gradients {
  Tensor log_delta, log_scale_group, log_scale_weight, alpha;
};
absl::StatusOr<Gradients> NewGradients(Backend* backend, const QuantizerState& state);
void Backward(Backend* backend, const QuantizerState& state, const Tensor& upstream,
              Gradients* gradients);

// The optimizer's step in one pass over the state: Backward, Adam (0.9, 0.999, 1e-8) on every
// trained parameter with the learning rates and bias corrections in *params (device memory), then
// the next forward pass with params->mapping into w_hat. Equal to Backward + Adam + Forward.
// `upstream` may be overwritten by what is issued next when it has more than kLargestAsideUpdate
// elements: smaller updates may run beside that.
inline constexpr int64_t kLargestAsideUpdate = int64_t{1} << 20;
void UpdateAndForward(Backend* backend, const ops::StepParams* params, const Tensor& upstream,
                      QuantizerState* state, Tensor* w_hat);

// Unification (the paper's theorem): host arrays ready to store.
using uniquanf::UnifiedLinear;
absl::StatusOr<UnifiedLinear> Unify(Backend* backend, const QuantizerState& state);

// A layer's codes on a device, whoever trained them; borrowed.
struct StoredCodes {
  const Tensor* codes;  // [N, K] u8; or f32, whose lowest `bits` bits they are (compact_state.h)
  int bits;
  int64_t group_size;

  int64_t num_outputs() const { return codes->dim(0); }
  int64_t num_inputs() const { return codes->dim(1); }
  int64_t groups_per_row() const { return num_inputs() / group_size; }
};
inline StoredCodes CodesOf(const QuantizerState& state) {
  return {state.packs_codes() ? &state.log_scale_weight : &state.codes, state.bits,
          state.group_size};
}
// The weights as they are stored, on the device: out[N, K] act = ((±α_0) ± α_1 ...) + β by the
// codes, for stored scales alpha [N, Gr, n] and beta [N, Gr], f32. Before rounding to act the same
// bits as uniquanf::Dequantize gives for the packed layer.
void WriteStored(Backend* backend, const StoredCodes& codes, const Tensor& alpha,
                 const Tensor& beta, Tensor* out);

}  // namespace uniquanf::quant

#endif  // UNIQUANF_WORKER_QUANT_QUANTIZER_H_
