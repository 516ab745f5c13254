#include "worker/quant/channel_scales.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/check.h"

namespace uniquanf::quant {
namespace {

std::vector<float>* Mutable(ScaledBlock* block, int tensor) {
  const auto [it, is_new] = block->changed.try_emplace(tensor);
  if (is_new) it->second = (*block->original)[tensor];
  return &it->second;
}

// `tensor` is stored as it is; `value` is what the block computes with.
bool IsStoredExactly(const ScaledBlock& block, int tensor, float value) {
  const float added = block.spec->tensors[tensor].stored.added;
  return std::isfinite(value) && block.stored(tensor, value - added) + added == value;
}

float PowerOfTwo(float scale) { return std::exp2(std::nearbyint(std::log2(scale))); }

// What a scale becomes, given what has to hold it.
float Feasible(const FoldSite& site, bool adjust, int64_t channel, float scale,
               const ScaledBlock& block) {
  if (!(scale > 0) || !std::isfinite(scale)) return 1;
  if (adjust && site.rows < 0) {
    const int tensor = site.vectors[0];
    const float added = block.spec->tensors[tensor].stored.added;
    const float value = block.values(tensor)[channel];
    const float divided = block.stored(tensor, value / scale - added) + added;
    scale = value / divided;
    return scale > 0 && std::isfinite(scale) ? scale : 1;
  }
  for (const int tensor : site.vectors) {
    const float value = block.values(tensor)[channel], divided = value / scale;
    if (!IsStoredExactly(block, tensor, divided) || divided * scale != value) return 1;
  }
  return scale;
}

}  // namespace

bool CanScale(const ScaledBlock& block, const FoldSite& site) {
  const std::vector<TensorSpec>& tensors = block.spec->tensors;
  const auto plain = [&](int tensor) {
    return tensors[tensor].stored.IsPlain() && tensors[tensor].stored.constant.empty();
  };
  if (site.rows >= 0 && !block.quantized[site.rows]) return false;
  if (!std::all_of(site.vectors.begin(), site.vectors.end(), plain)) return false;
  return std::all_of(site.columns.begin(), site.columns.end(), [&](int tensor) {
    if (tensors[tensor].role == TensorRole::kLinear) return bool{block.quantized[tensor]};
    return plain(tensor);
  });
}

int64_t ScaleChannels(const FoldSite& site, bool adjust, std::vector<float>* scales,
                      ScaledBlock* block) {
  UQ_CHECK(static_cast<int64_t>(scales->size()) == site.num_channels);
  const std::vector<TensorSpec>& tensors = block->spec->tensors;
  std::vector<int> matrices;  // stored as they are
  for (const int tensor : site.columns) {
    if (tensors[tensor].role != TensorRole::kLinear) matrices.push_back(tensor);
  }
  const size_t num_free = site.rows >= 0 ? 0 : 1;
  if (site.vectors.size() > num_free || !matrices.empty()) {
    for (float& scale : *scales) scale = PowerOfTwo(scale);
    adjust = false;
  }
  for (int64_t c = 0; c < site.num_channels; ++c) {
    (*scales)[c] = Feasible(site, adjust, c, (*scales)[c], *block);
  }
  for (const int tensor : matrices) {
    const std::vector<float>& values = block->values(tensor);
    const int64_t width = tensors[tensor].num_inputs();
    for (size_t i = 0; i < values.size(); ++i) {
      float& scale = (*scales)[site.ChannelOf(static_cast<int64_t>(i) % width)];
      const float product = values[i] * scale;
      if (scale != 1 &&
          (!IsStoredExactly(*block, tensor, product) || product / scale != values[i])) {
        scale = 1;
      }
    }
  }
  const auto num_scaled =
      std::count_if(scales->begin(), scales->end(), [](float scale) { return scale != 1; });
  if (num_scaled == 0) return 0;
  for (const int tensor : site.vectors) {
    std::vector<float>& values = *Mutable(block, tensor);
    const float added = tensors[tensor].stored.added;
    for (int64_t c = 0; c < site.num_channels; ++c) {
      if ((*scales)[c] == 1) continue;
      // The quotient, as its element type holds it: exact already unless adjusted.
      values[c] = block->stored(tensor, values[c] / (*scales)[c] - added) + added;
    }
  }
  if (site.rows >= 0) {
    std::vector<float>& values = *Mutable(block, site.rows);
    const int64_t width = tensors[site.rows].num_inputs();
    for (int64_t c = 0; c < site.num_channels; ++c) {
      for (int64_t k = 0; k < width; ++k) values[c * width + k] /= (*scales)[c];
    }
  }
  for (const int tensor : site.columns) {
    std::vector<float>& values = *Mutable(block, tensor);
    const int64_t width = tensors[tensor].num_inputs();
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] *= (*scales)[site.ChannelOf(static_cast<int64_t>(i) % width)];
    }
  }
  return num_scaled;
}

}  // namespace uniquanf::quant
