// Folding of outlier channels: a channel whose inputs stand out, as in models with massive
// activations, has weights so much smaller than its neighbours' that a common grid rounds them
// away. Scaling it by an exact power of two, which a norm or the layer before takes back, costs
// nothing and changes neither function nor format.
//
//   s_c = 2^round(log2(min(r_c / m_r, m_w / w_c))), where that is above log2 4, else 1;
// r_c the root mean square of channel c over the calibration, w_c that of the weights that read it,
// m_r and m_w the medians of both. Large inputs alone are no reason: where their weights are as
// large as others, scaling would make them the outliers. All channels of a site also move together
// where its weights are so small or large that fp16 scales cannot say them.
//
// Thread safety: free functions.
#ifndef UNIQUANF_WORKER_QUANT_FOLDING_H_
#define UNIQUANF_WORKER_QUANT_FOLDING_H_

#include <cstdint>
#include <vector>

#include "worker/quant/channel_scales.h"

namespace uniquanf::quant {

inline constexpr float kStandsOut = 4;
// The largest weight of what reads a site lies between these, or is brought to about 1.
inline constexpr float kLeastWeight = 0x1p-8f, kLargestWeight = 0x1p12f;

// squares: by linear layer, Σ x² of each input over the calibration [K]. Returns the number of
// channels that were scaled, 0 where none stands out.
int64_t FoldOutliers(const std::vector<std::vector<float>>& squares, ScaledBlock* block);

}  // namespace uniquanf::quant

#endif  // UNIQUANF_WORKER_QUANT_FOLDING_H_
