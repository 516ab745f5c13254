// Block reconstruction: jointly optimizes the quantizers of all linear layers of one decoder block
// so that the quantized block's output matches the original's on calibration data (README.md,
// "Reconstruction").
//
// Thread safety: one thread per call; `cancel` and `progress` are called from it.
// Errors: kCancelled when cancelled; kResourceExhausted (OUT_OF_MEMORY); kInternal
// (LOSS_NOT_FINITE).
#ifndef UNIQUANF_WORKER_QUANT_RECONSTRUCT_H_
#define UNIQUANF_WORKER_QUANT_RECONSTRUCT_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/backend/sequence_buffer.h"
#include "worker/block/block.h"
#include "worker/quant/quantizer.h"

namespace uniquanf::quant {

struct ReconstructOptions {
  int64_t num_steps = 0;  // all of them; the cosine runs over this many
  // Runs the steps [first_step, end_step) only, for a layer that is optimized in rounds; end_step
  // −1: to the end. Order of the sequences, mixing of the inputs and learning rates are those of
  // the whole run. From first_step > 0 the states are taken as the part before left them, moments
  // and codes included: parts on the same inputs give the bits of a run in one go.
  int64_t first_step = 0;
  int64_t end_step = -1;
  int batch_size = 1;        // sequences a step, 1..ops::kMaxBatchSize
  int micro_batch_size = 0;  // sequences at once, a divisor of batch_size; 0: MicroBatchSize's
  double input_prob = 0.5;
  double uniform_learning_rate = 5e-3;
  double binary_learning_rate = 5e-4;
  int remap_period = 2;
  uint64_t seed = 0;    // mixed with the layer's index by the caller
  bool shuffle = true;  // false: sequences in file order every epoch (goldens)
  // In a run in one go: when the final loss is not below the initial one, the states are what they
  // were at the beginning. Their s2 and s3 must be 0 then, as initialization leaves them.
  bool keep_better_start = false;
  int64_t report_every = 16;  // steps between progress calls (they synchronize the device)
};

struct ReconstructProgress {
  int64_t step = 0, num_steps = 0;
  float loss = 0;  // mean of the steps since the last call
};

// Sequences that are forwarded and backwarded at once: the largest divisor of batch_size that is at
// most kMicroBatchTokens tokens, or one. A step sums the gradients of batch_size divided by this
// many micro-batches in float32, so its memory does not grow with the batch. The rule knows nothing
// of the device: the bits of a result do not depend on how much memory there was.
inline constexpr int64_t kMicroBatchTokens = 2048;
int MicroBatchSize(int batch_size, int64_t sequence_length);

// At most this many calibration sequences (the first ones) measure initial_loss and final_loss.
inline constexpr int64_t kMaxEvaluationSequences = 32;

struct ReconstructResult {
  std::vector<float> losses;  // one for each step that was run, before its update
  // Mean loss before the first and after the last step: forward passes with the input x_q (x_fp
  // where there is none) over the first min(S, kMaxEvaluationSequences) sequences, rounded up to
  // whole micro-batches by starting again at the first.
  double initial_loss = 0;
  double final_loss = 0;
  bool kept_start = false;  // as keep_better_start says
};

// Calibration activations of a block, each [S, L, H] act, all on the device or all on the host
// (then a step's sequences are copied to the device before it). x_q may be empty when input_prob is
// 0.
struct BlockActivations {
  SequenceSource x_fp;
  SequenceSource x_q;
  SequenceSource y_fp;
};

// The states must be initialized, or what an earlier part left. Learning rates, the order of the
// sequences and the mapping of each step are those of worker/quant/step_schedule.h. `progress` and
// `cancelled` may be empty; `cancelled` is asked before each step, `progress` called every
// report_every steps and after the last. REQUIRES: 0 <= first_step <= end_step <= num_steps; shapes
// agree; x_q is given unless input_prob is 0. `states` has one entry a
// linear, null for a layer left in full precision, whose weight then stays as it is in `weights`.
// The others' tensors in `weights` are used for ŵ and hold the final ŵ (codes kept) on return.
// `losses` are those of steps counted from 0; quantizer passes count from 1.
absl::StatusOr<ReconstructResult> ReconstructBlock(
    Backend* backend, const BlockSpec& block, const RopeTables& rope,
    const ReconstructOptions& options, const BlockActivations& activations, BlockWeights* weights,
    std::vector<QuantizerState*> states,
    const std::function<void(const ReconstructProgress&)>& progress,
    const std::function<bool()>& cancelled);

}  // namespace uniquanf::quant

#endif  // UNIQUANF_WORKER_QUANT_RECONSTRUCT_H_
