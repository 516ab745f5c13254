// AWQ's search for the scales of a site's channels: s = r^α / √(max s · min s), r the root mean
// square of each channel, over α = 0, 0.05, … 1; the one with the least relative error of what the
// site's linear layers compute, Σ tr(D M Dᵀ) / tr(W M Wᵀ), rounded on min-max grids.
//
// Thread safety: as Backend. Errors: allocation failures, device errors.
#ifndef UNIQUANF_WORKER_QUANT_CHANNEL_SEARCH_H_
#define UNIQUANF_WORKER_QUANT_CHANNEL_SEARCH_H_

#include <vector>

#include "absl/status/statusor.h"
#include "common/spec/quantization_spec.h"
#include "worker/quant/channel_scales.h"
#include "worker/quant/input_moments.h"

namespace uniquanf::quant {

struct ScaledLinear {
  int tensor = -1;
  int bits = 0;
  int64_t group_size = 0;
  const InputMoments* moments = nullptr;
};

// Scales by channel; all 1 where nothing is gained. Products are computed on the device in `act`.
absl::StatusOr<std::vector<float>> SearchScales(Backend* backend, DType act, Levels levels,
                                                const FoldSite& site, const ScaledBlock& block,
                                                const std::vector<ScaledLinear>& linears);

}  // namespace uniquanf::quant

#endif  // UNIQUANF_WORKER_QUANT_CHANNEL_SEARCH_H_
