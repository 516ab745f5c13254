// One linear layer after unification (Park et al., ACL 2025, theorem 1): plain binary-coding
// quantization, in host memory and full precision, before it is packed.
// Thread safety: plain value.
#ifndef UNIQUANF_COMMON_ARTIFACT_UNIFIED_LINEAR_H_
#define UNIQUANF_COMMON_ARTIFACT_UNIFIED_LINEAR_H_

#include <cstdint>
#include <vector>

namespace uniquanf {

// ŵ = Σ_i alpha_i·b_i + shift, with Gr = num_inputs / group_size groups a row.
struct UnifiedLinear {
  int bits = 0;  // n, 2..8
  int64_t num_outputs = 0, num_inputs = 0, group_size = 0;
  // [N, K], 0 .. 2^n − 1; bit i (most significant first) 0 means b_i = +1.
  std::vector<uint8_t> codes;
  std::vector<float> alpha;  // [N, Gr, n]  α* = Δ·α
  std::vector<float> shift;  // [N, Gr]     z* = Δ·(z_B + (2^n − 1)/2 − z_U)
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_ARTIFACT_UNIFIED_LINEAR_H_
