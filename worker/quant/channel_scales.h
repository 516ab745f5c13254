// Scaling channels of a block in place (worker/block/fold_sites.h), so that what is stored computes
// the same function: what cannot be said in the stored element types is left alone.
//
// Thread safety: free functions.
#ifndef UNIQUANF_WORKER_QUANT_CHANNEL_SCALES_H_
#define UNIQUANF_WORKER_QUANT_CHANNEL_SCALES_H_

#include <functional>
#include <map>
#include <set>
#include <vector>

#include "worker/block/fold_sites.h"

namespace uniquanf::quant {

// A block's tensors on the host by index, f32, and what became of them.
struct ScaledBlock {
  const BlockSpec* spec = nullptr;
  const std::vector<std::vector<float>>* original = nullptr;
  std::map<int, std::vector<float>> changed;  // whole tensors by index, where they differ
  // By tensor: a linear layer that will be quantized, so that its stored form takes any scale.
  std::vector<bool> quantized;
  // `value` of a tensor that is stored as it is, as its element type holds it.
  std::function<float(int tensor, float value)> stored;

  const std::vector<float>& values(int tensor) const {
    const auto it = changed.find(tensor);
    return it == changed.end() ? (*original)[tensor] : it->second;
  }
};

// Whether all that the site touches can be scaled at all.
bool CanScale(const ScaledBlock& block, const FoldSite& site);

// Divides and multiplies by `scales` [C], positive. A channel whose stored values cannot hold the
// quotient or product exactly is left alone (its scale becomes 1). With `adjust` a norm's weight is
// rounded to what can be stored and the scale becomes the exact quotient of both; where a site also
// has a bias or a matrix that is not quantized, scales are rounded to powers of two first. Returns
// how many scales are not 1. REQUIRES: CanScale.
int64_t ScaleChannels(const FoldSite& site, bool adjust, std::vector<float>* scales,
                      ScaledBlock* block);

}  // namespace uniquanf::quant

#endif  // UNIQUANF_WORKER_QUANT_CHANNEL_SCALES_H_
