// One sequence at a time through a block: what ForwardBlock and EvaluatePerplexity share.
#ifndef UNIQUANF_WORKER_MODEL_FORWARD_SEQUENCES_H_
#define UNIQUANF_WORKER_MODEL_FORWARD_SEQUENCES_H_

#include <functional>

#include "absl/status/status.h"
#include "worker/block/block.h"
#include "worker/model/checkpoint.h"

namespace uniquanf {

// Where sequences come from and go to: load(s, x) fills x[L, H], store(s, y) keeps y[L, H].
using LoadSequence = std::function<absl::Status(int64_t, Tensor*)>;
using StoreSequence = std::function<absl::Status(int64_t, const Tensor&)>;

// A block's weights on a device; linear layers that are packed multiply from there.
struct DeviceBlock {
  BlockWeights weights;
  PackedBlock packed;           // empty: nothing is
  packed::Workspace workspace;  // of the packed ones
};
// `keep_packed`: quantized layers stay as they are stored; else all are dequantized.
absl::StatusOr<DeviceBlock> LoadDeviceBlock(Backend* backend, const Checkpoint& checkpoint,
                                            int layer, DType act, bool keep_packed);

// store(s, block(load(s))) for s in [0, S), one after the other, so that the bits of a sequence do
// not depend on S. An error of either ends the loop and is returned.
absl::Status ForwardSequences(Backend* backend, const BlockSpec& spec, DType act,
                              const RopeTables& rope, const BlockWeights& weights,
                              int64_t num_sequences, int64_t seq_len, const LoadSequence& load,
                              const StoreSequence& store, const PackedBlock* packed = nullptr,
                              packed::Workspace* workspace = nullptr);
// Both for hidden [S, L, H] on the device.
LoadSequence LoadFrom(Backend* backend, const Tensor& hidden);
StoreSequence StoreTo(Backend* backend, Tensor* hidden);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_FORWARD_SEQUENCES_H_
