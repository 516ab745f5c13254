// Block reconstruction: jointly optimizes the quantizers of all linear layers of one decoder block
// so that the quantized block's output matches the original's on calibration data (ALGORITHM,
// "Block reconstruction").
//
// Thread safety: one thread per call; `cancel` and `progress` are called from it.
// Errors: kCancelled when cancelled; kResourceExhausted (OUT_OF_MEMORY); kInternal
// (LOSS_NOT_FINITE).
#ifndef UNIQUANF_WORKER_QUANT_RECONSTRUCT_H_
#define UNIQUANF_WORKER_QUANT_RECONSTRUCT_H_

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/block/block.h"
#include "worker/quant/quantizer.h"

namespace uniquanf::quant {

struct ReconstructOptions {
  int64_t num_steps = 0;  // all of them; the cosine runs over this many
  int batch_size = 1;
  double input_prob = 0.5;
  double uniform_learning_rate = 5e-3;
  double binary_learning_rate = 5e-4;
  int remap_period = 2;
  uint64_t seed = 0;          // mixed with the layer's index by the caller
  bool shuffle = true;        // false: sequences in file order every epoch (goldens)
  int64_t report_every = 16;  // steps between progress calls (they synchronize the device)
};

struct ReconstructProgress {
  int64_t step = 0, num_steps = 0;
  float loss = 0;  // mean of the steps since the last call
};

struct ReconstructResult {
  std::vector<float> losses;  // one a step, before the step's update
  double initial_loss =
      0;  // mean loss over the first epoch's... see .cc: loss of the initialized block
  double final_loss = 0;  // mean of the last epoch's (or last min(num_steps, S)) losses
};

// Calibration activations of a block, each [S, L, H] act. x_q may be null when input_prob is 0.
struct BlockActivations {
  const Tensor* x_fp = nullptr;
  const Tensor* x_q = nullptr;
  const Tensor* y_fp = nullptr;
};

// `states[l]` is null for a layer left in full precision, whose weight then stays as it is in
// `weights`. For the others weights->linear[l] is used for ŵ and holds the final ŵ (codes kept) on
// return. `losses` are those of steps counted from 0; quantizer passes count from 1.
absl::StatusOr<ReconstructResult> ReconstructBlock(
    Backend* backend, const BlockConfig& config, const RopeTables& rope,
    const ReconstructOptions& options, const BlockActivations& activations, BlockWeights* weights,
    std::array<QuantizerState*, kNumLinears> states,
    const std::function<void(const ReconstructProgress&)>& progress,
    const std::function<bool()>& cancelled);

}  // namespace uniquanf::quant

#endif  // UNIQUANF_WORKER_QUANT_RECONSTRUCT_H_
