// Where the quantizers of a block began, to return to when training has not lowered its error.
//
// Thread safety: as Backend. Errors: allocation failures, device errors.
#ifndef UNIQUANF_WORKER_QUANT_KEPT_START_H_
#define UNIQUANF_WORKER_QUANT_KEPT_START_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/block/block.h"
#include "worker/quant/quantizer.h"

namespace uniquanf::quant {

class KeptStart {
 public:
  KeptStart() = default;
  // Copies what training, or the state of an earlier round, changes. REQUIRES: s2 and s3 are 0, as
  // initialization leaves them. `states` by linear; null: not quantized.
  static absl::StatusOr<KeptStart> Save(Backend* backend,
                                        const std::vector<QuantizerState*>& states);
  // Puts it back; codes are the direct mapping's, and the weights ŵ.
  absl::Status Return(const BlockSpec& block, const std::vector<QuantizerState*>& states,
                      BlockWeights* weights) const;
  // Device bytes for a linear layer; for planning.
  static uint64_t Bytes(int64_t num_outputs, int64_t num_inputs, int bits, int64_t group_size) {
    // log Δ, z_U, z_B and α of every group.
    return static_cast<uint64_t>(num_outputs) * (num_inputs / group_size) * (3 + bits) *
           sizeof(float);
  }

 private:
  static constexpr int kNumParts = 4;
  static const std::array<Tensor QuantizerState::*, kNumParts> kParts;
  Backend* backend_ = nullptr;
  std::vector<std::array<Tensor, kNumParts>> saved_;
};

}  // namespace uniquanf::quant

#endif  // UNIQUANF_WORKER_QUANT_KEPT_START_H_
