// Uniform grids with whole zero points, ŵ = Δ·(c − z) with z in 0 .. 2^n − 1, as formats of weights
// hold them. On the host, the same for every device.
//
// Thread safety: free functions; work in parallel inside, with bits that do not depend on it.
#ifndef UNIQUANF_WORKER_QUANT_UNIFORM_GRIDS_H_
#define UNIQUANF_WORKER_QUANT_UNIFORM_GRIDS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "common/spec/quantization_spec.h"
#include "worker/quant/quantizer.h"

namespace uniquanf::quant {

struct UniformGrid {
  float delta, zero_point;
  // The code nearest to w.
  float Code(float w, float last_code) const {
    const float code = __builtin_nearbyintf(w / delta + zero_point);
    return code < 0 ? 0.0f : code > last_code ? last_code : code;
  }
  float Value(float code) const { return (code - zero_point) * delta; }
};

// Of every group of weights [N, K], in order. The group's range, which holds zero, is clipped to
// the part with the least Σ m_k |w_k − ŵ_k|^2.4 where `search`; importance m [K], empty: 1. Levels
// kSymmetric: z = 2^(n−1); else z is where zero lies. Unless levels are kAny, steps of up to 5 bits
// are such that fp16 stores scales and shifts exactly.
std::vector<UniformGrid> FindGrids(const std::vector<float>& weights, int64_t num_inputs, int bits,
                                   int64_t group_size, Levels levels, bool search,
                                   const std::vector<float>& importance);

// Puts grids and codes (row-major [N, K]; empty: the nearest) into a state, whose scales of weights
// become 1.
absl::Status SetGrids(const std::vector<UniformGrid>& grids, const std::vector<float>& weights,
                      std::vector<uint8_t> codes, QuantizerState* state);

// The state's start on such grids, searched where `search`.
absl::Status StartOnGrids(Levels levels, bool search, const std::vector<float>& importance,
                          QuantizerState* state);

}  // namespace uniquanf::quant

#endif  // UNIQUANF_WORKER_QUANT_UNIFORM_GRIDS_H_
