// The quantizer of distillation (worker/distill): a stored linear layer whose codes, scale factors
// and shift are trained directly. With a fixed step Δ a group,
//
//   ŵ = (L(c) + β)·Δ,  L(c) = Σ_i α_i σ_i(c),  c = the nearest of all 2^n levels to the latent u,
//
// ties to the lower code. u, α and β are in units of Δ. With upstream gradient G = ∂loss/∂ŵ:
//
//   ∂α_i = Σ_group ΔG σ_i(c),  ∂β = Σ_group ΔG,  ∂u = ΔG [ |u − L(c)| <= min_i |α_i| ]
//
// (straight through, filtered as quantizer.h's; α's and β's are exact).
//
// Shapes: latent [N, K] f32; group arrays [N, Gr] f32; alpha [N, Gr, n] f32; codes [N, K] u8.
// Thread safety: as Backend. Reductions are deterministic. Errors: bugs CHECK-fail; allocation
// failures are returned.
#ifndef UNIQUANF_WORKER_QUANT_LATENT_QUANTIZER_H_
#define UNIQUANF_WORKER_QUANT_LATENT_QUANTIZER_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/artifact/unified_linear.h"
#include "worker/backend/backend.h"
#include "worker/backend/tensor.h"

namespace uniquanf::quant {

struct LatentState {
  int bits = 0;            // n
  int64_t group_size = 0;  // g
  Tensor latent;           // u
  Tensor alpha, beta;
  Tensor delta;  // Δ, fixed
  Tensor codes;
  // Adam's moments.
  Tensor m_latent, v_latent, m_alpha, v_alpha, m_beta, v_beta;

  int64_t num_outputs() const { return latent.dim(0); }
  int64_t num_inputs() const { return latent.dim(1); }
  int64_t groups_per_row() const { return num_inputs() / group_size; }
};

// Device bytes of a state; for planning.
uint64_t LatentStateBytes(int64_t num_outputs, int64_t num_inputs, int bits, int64_t group_size);

// A state that stores what `stored` stores: Δ is the mean distance of the levels, u is (w − β*)/Δ
// where that lies in the stored code's cell, else the nearest point inside it. `weight` [N, K] are
// the original weights. The moments are zero.
absl::StatusOr<LatentState> StartLatents(Backend* backend, const UnifiedLinear& stored,
                                         const float* weight);

// What a step's update uses: Adam with β1 0.9, β2 0.99, ε 1e-8.
struct LatentStep {
  float latent_rate = 0, scale_rate = 0;             // of u; of α and β
  float bias_correction1 = 1, bias_correction2 = 1;  // 1 − β^(step + 1)
};
inline constexpr double kLatentBeta2 = 0.99;

// Codes from u, and w_hat[N, K] act.
void ForwardLatents(Backend* backend, LatentState* state, Tensor* w_hat);

// The gradients above with the codes of the last forward pass; for tests and small uses.
// upstream [N, K] act or f32; outputs f32 shaped like the parameters.
struct LatentGradients {
  Tensor latent, alpha, beta;
};
absl::StatusOr<LatentGradients> NewLatentGradients(Backend* backend, const LatentState& state);
void BackwardLatents(Backend* backend, const LatentState& state, const Tensor& upstream,
                     LatentGradients* gradients);

// Backward, Adam and the next forward pass.
void UpdateLatents(Backend* backend, const LatentStep& step, const Tensor& upstream,
                   LatentState* state, Tensor* w_hat);

// As it is stored: α* = Δα, z* = Δβ, the codes.
absl::StatusOr<UnifiedLinear> UnifyLatents(Backend* backend, const LatentState& state);

}  // namespace uniquanf::quant

#endif  // UNIQUANF_WORKER_QUANT_LATENT_QUANTIZER_H_
