// The calibration sequences of one micro-batch, where ops can gather them: the activations
// themselves when they lie on the device; else copies, of which the next micro-batch's are made
// while this one's ops run. Internal to worker/quant.
//
// Thread safety: as Backend. The activations are borrowed. Errors: kResourceExhausted
// (OUT_OF_MEMORY) from Create; device errors.
#ifndef UNIQUANF_WORKER_QUANT_STAGED_BATCH_H_
#define UNIQUANF_WORKER_QUANT_STAGED_BATCH_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/backend/sequence_buffer.h"
#include "worker/quant/reconstruct.h"

namespace uniquanf::quant {

class StagedBatch {
 public:
  // `size` sequences at a time.
  static absl::StatusOr<StagedBatch> Create(Backend* backend, const BlockActivations& activations,
                                            int size);

  // What ops gather from, at the same place for the object's life: [S, L, H], or [size, L, H] where
  // sequences are staged. x_q is null where there is none.
  const Tensor* x_fp() const { return tensor(0); }
  const Tensor* y_fp() const { return tensor(1); }
  const Tensor* x_q() const { return tensor(2); }

  // Makes the sequences sequence_index[0..size) the staged ones and sequence_index their places.
  absl::Status Take(int64_t* sequence_index);
  // Starts to copy what the next Take will ask for; ops issued from now on do not wait for it.
  absl::Status Prefetch(const int64_t* sequence_index);

 private:
  // A staged kind of activations: `landing` is filled from the side and then copied to `staged`,
  // whose address recorded ops know.
  struct Kind {
    SequenceSource source;
    Tensor staged, landing;
  };
  bool is_staged() const { return !kinds_[0].staged.empty(); }
  const Tensor* tensor(int kind) const {
    return is_staged() && !kinds_[kind].staged.empty() ? &kinds_[kind].staged
                                                       : kinds_[kind].source.tensor();
  }

  Backend* backend_ = nullptr;
  int size_ = 0;
  Kind kinds_[3];
  std::vector<int64_t> prefetched_;  // empty: nothing on its way
};

}  // namespace uniquanf::quant

#endif  // UNIQUANF_WORKER_QUANT_STAGED_BATCH_H_
