// The CUDA implementation of packed_linear.h (compute capability 8.0 and later).
//
// Decoding: a warp makes 128 rows, four neighbours a lane, over a chunk of words. The columns of a
// word are cut into runs of 5, 5, 5, 5, 5, 5 and 2; a run's 32 sums of ±x lie across the lanes of
// the warp, one register a run, and a look-up is a shuffle: no bank conflicts, and the index needs
// no more than a shift. The eight warps of a block take eight chunks of the same rows and add up in
// shared memory; where the rows are too few to fill the device the words are split over blocks,
// whose sums the last one to finish adds in order (no atomic additions: the same bits every time).
#ifndef UNIQUANF_WORKER_PACKED_PACKED_CUDA_H_
#define UNIQUANF_WORKER_PACKED_PACKED_CUDA_H_

#include "worker/packed/packed_linear.h"

namespace uniquanf::packed::cuda {

inline constexpr int kBlockRows = 128;  // of decoding
inline constexpr int kMaxSplits = 32;   // blocks that share rows

void Decode(Backend* backend, const Tensor& x, absl::Span<const Product> products,
            Workspace* workspace);
void Prefill(Backend* backend, const Tensor& x, const Product& product, Workspace* workspace);
void DequantizeRows(Backend* backend, const PackedWeights& weights, int64_t first_row,
                    int64_t end_row, Tensor* out);

}  // namespace uniquanf::packed::cuda

#endif  // UNIQUANF_WORKER_PACKED_PACKED_CUDA_H_
