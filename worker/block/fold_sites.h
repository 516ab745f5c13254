// Where a block's channels may be scaled without changing what it computes: what makes channel c is
// divided by s_c, what reads it multiplied by s_c. Found in the graph, so it holds for every
// family: a norm and all linear layers that read it, the values and the output projection of
// attention (heads that share a key/value head share its scales), `up` and `down` of a gated MLP or
// expert.
//
// Thread safety: plain values.
#ifndef UNIQUANF_WORKER_BLOCK_FOLD_SITES_H_
#define UNIQUANF_WORKER_BLOCK_FOLD_SITES_H_

#include <cstdint>
#include <vector>

#include "worker/block/block_spec.h"

namespace uniquanf {

struct FoldSite {
  int64_t num_channels = 0;  // C
  // Divided by s: vectors [C] (a norm's weight and bias, a linear layer's bias) and the rows of a
  // linear layer. Indices of tensors; rows −1: a norm makes the channels.
  std::vector<int> vectors;
  int rows = -1;
  // Multiplied by s: the columns of these matrices, linear layers and others (a router).
  std::vector<int> columns;
  // Column h · head_dim + d is channel (h / share) · head_dim + d.
  int64_t head_dim = 1;
  int64_t share = 1;

  int64_t ChannelOf(int64_t column) const {
    return share == 1 ? column : column / head_dim / share * head_dim + column % head_dim;
  }
};

// Layers' outputs first, norms last. What lies behind anything that is not linear in a channel, or
// is read by something else too, is not listed.
std::vector<FoldSite> FindFoldSites(const BlockSpec& spec);

// By linear layer: the first one that multiplies the same input (itself, where it is the first).
std::vector<int> SharedInputs(const BlockSpec& spec);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_BLOCK_FOLD_SITES_H_
