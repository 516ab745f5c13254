#include "worker/quant/gradient_memory.h"

#include <algorithm>

#include "common/base/status.h"

namespace uniquanf::quant {
namespace {

// In one place with those of other layers, where a gradient is used as soon as it is made.
bool SharesGradient(const BlockSpec& block, int l) {
  return block.linear(l).num_elements() > kLargestAsideUpdate;
}

}  // namespace

absl::Status AllocateGradients(Backend* backend, const BlockSpec& block,
                               const std::vector<QuantizerState*>& states, DType dtype,
                               Tensor* shared, BlockGradients* gradients) {
  int64_t largest = 0;
  for (int l = 0; l < block.num_linears(); ++l) {
    if (states[l] == nullptr || !SharesGradient(block, l)) continue;
    largest = std::max(largest, block.linear(l).num_elements());
  }
  if (largest > 0) {
    UQ_ASSIGN_OR_RETURN(*shared, Tensor::Allocate(backend, dtype, {largest}));
  }
  for (int l = 0; l < block.num_linears(); ++l) {
    // A layer left in full precision needs no gradient: an empty tensor says so.
    if (states[l] == nullptr) continue;
    const Shape& shape = block.linear(l).shape;
    if (SharesGradient(block, l)) {
      (*gradients)[l] = Tensor::View(backend, shared->data(), dtype, shape);
    } else {
      UQ_ASSIGN_OR_RETURN((*gradients)[l], Tensor::Allocate(backend, dtype, shape));
    }
  }
  return absl::OkStatus();
}

uint64_t GradientBytes(const BlockSpec& block, DType act, bool sums) {
  uint64_t sum_bytes = 0, own = 0, shared = 0;
  for (int l = 0; l < block.num_linears(); ++l) {
    const auto elements = static_cast<uint64_t>(block.linear(l).num_elements());
    if (sums) sum_bytes += elements * sizeof(float);
    if (SharesGradient(block, l)) {
      shared = std::max(shared, elements);
    } else {
      own += elements;
    }
  }
  const bool only_sums = sums && act == DType::kFloat32;
  return sum_bytes + (only_sums ? 0 : (own + shared) * DTypeBytes(act));
}

}  // namespace uniquanf::quant
