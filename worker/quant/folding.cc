#include "worker/quant/folding.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace uniquanf::quant {
namespace {

float LargestWeight(const std::vector<int>& tensors, const ScaledBlock& block) {
  float largest = 0;
  for (const int tensor : tensors) {
    if (block.spec->tensors[tensor].role != TensorRole::kLinear) continue;
    for (const float value : block.values(tensor)) largest = std::max(largest, std::fabs(value));
  }
  return largest;
}

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// By what all channels are multiplied besides, so that fp16 can hold the scales of their weights.
float CommonScale(const FoldSite& site, const ScaledBlock& block) {
  const float largest = LargestWeight(site.columns, block);
  if (largest == 0 || (largest >= kLeastWeight && largest <= kLargestWeight)) return 1;
  const float scale = std::exp2(-std::nearbyint(std::log2(largest)));
  if (site.rows < 0) return scale;
  const float rows = LargestWeight({site.rows}, block) / scale;
  return rows >= kLeastWeight && rows <= kLargestWeight ? scale : 1;
}

}  // namespace

int64_t FoldOutliers(const std::vector<std::vector<float>>& squares, ScaledBlock* block) {
  const BlockSpec& spec = *block->spec;
  std::map<int, const std::vector<float>*> squares_of;  // by tensor
  for (int l = 0; l < spec.num_linears(); ++l) squares_of[spec.linears[l]] = &squares[l];
  int64_t num_scaled = 0;
  for (const FoldSite& site : FindFoldSites(spec)) {
    if (!CanScale(*block, site)) continue;
    std::vector<double> inputs(site.num_channels), weights(site.num_channels);
    for (const int tensor : site.columns) {
      const auto it = squares_of.find(tensor);
      if (it == squares_of.end()) continue;
      const auto width = static_cast<int64_t>(it->second->size());
      for (int64_t k = 0; k < width; ++k) inputs[site.ChannelOf(k)] += (*it->second)[k];
      const std::vector<float>& values = block->values(tensor);
      for (size_t i = 0; i < values.size(); ++i) {
        const double value = values[i];
        weights[site.ChannelOf(static_cast<int64_t>(i) % width)] += value * value;
      }
    }
    const double median_input = Median(inputs), median_weight = Median(weights);
    std::vector<float> scales(site.num_channels, CommonScale(site, *block));
    if (median_input > 0 && median_weight > 0 && std::isfinite(median_input)) {
      for (int64_t c = 0; c < site.num_channels; ++c) {
        if (!(weights[c] > 0) || !std::isfinite(inputs[c])) continue;
        // Of squares.
        const double ratio = std::min(inputs[c] / median_input, median_weight / weights[c]);
        if (ratio <= kStandsOut * kStandsOut) continue;
        scales[c] *= static_cast<float>(std::exp2(std::nearbyint(std::log2(ratio) / 2)));
      }
    }
    if (std::all_of(scales.begin(), scales.end(), [](float scale) { return scale == 1; })) continue;
    num_scaled += ScaleChannels(site, /*adjust=*/false, &scales, block);
  }
  return num_scaled;
}

}  // namespace uniquanf::quant
