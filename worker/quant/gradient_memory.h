// Where the gradients of a block's weights lie while it is trained. Where a step is one
// micro-batch, each is used up before the next is made, so those of layers that do not update aside
// (kLargestAsideUpdate) lie in one place.
//
// Thread safety: as Backend. Errors: allocation failures.
#ifndef UNIQUANF_WORKER_QUANT_GRADIENT_MEMORY_H_
#define UNIQUANF_WORKER_QUANT_GRADIENT_MEMORY_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "worker/block/block.h"
#include "worker/quant/quantizer.h"

namespace uniquanf::quant {

// Gradients that are used as soon as they are made, one a layer that has a state, empty for the
// others: tensors of their own, or views of *shared. REQUIRES: *gradients has one entry a linear.
absl::Status AllocateGradients(Backend* backend, const BlockSpec& block,
                               const std::vector<QuantizerState*>& states, DType dtype,
                               Tensor* shared, BlockGradients* gradients);

// Device bytes of all of them; for planning. sums: a step sums several micro-batches in float32.
uint64_t GradientBytes(const BlockSpec& block, DType act, bool sums);

}  // namespace uniquanf::quant

#endif  // UNIQUANF_WORKER_QUANT_GRADIENT_MEMORY_H_
