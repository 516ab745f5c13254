// One sequence at a time through a block: what ForwardBlock and EvaluatePerplexity share.
#ifndef UNIQUANF_WORKER_MODEL_FORWARD_SEQUENCES_H_
#define UNIQUANF_WORKER_MODEL_FORWARD_SEQUENCES_H_

#include <functional>

#include "absl/status/status.h"
#include "worker/block/block.h"

namespace uniquanf {

// out[s] = block(hidden[s]) for hidden, out [S, L, H]; they may be the same tensor. `each`, where
// not empty, is called after every sequence; its error ends the loop and is returned.
absl::Status ForwardSequences(Backend* backend, const BlockConfig& config, const RopeTables& rope,
                              const BlockWeights& weights, const Tensor& hidden, Tensor* out,
                              const std::function<absl::Status()>& each);

// TOKEN_OUT_OF_RANGE unless every id is in [0, vocab_size).
absl::Status CheckTokens(const std::vector<int32_t>& ids, size_t num_ids, int64_t vocab_size);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_FORWARD_SEQUENCES_H_
