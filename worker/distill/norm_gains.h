// The gains of a block's norms, trained beside its linear layers: a few thousand numbers a layer,
// whose optimizer runs on the host. Thread safety: as Backend.
#ifndef UNIQUANF_WORKER_DISTILL_NORM_GAINS_H_
#define UNIQUANF_WORKER_DISTILL_NORM_GAINS_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/block/block.h"
#include "worker/quant/latent_quantizer.h"

namespace uniquanf::distill {

class NormGains {
 public:
  // Those of the block's norms that a checkpoint stores as they are. `weights` hold their values.
  static absl::StatusOr<NormGains> Create(Backend* backend, const BlockSpec& block,
                                          const BlockWeights& weights);

  // Where BlockRunner leaves their gradients.
  std::vector<Tensor>* gradients() { return &gradients_; }
  // One step of Adam, with step.scale_rate, into `weights`. Waits for the device.
  absl::Status Update(const quant::LatentStep& step, BlockWeights* weights);

  // By tensor of the block; empty where it is none of them.
  using Values = std::vector<std::vector<float>>;
  Values Save() const;
  absl::Status Restore(const Values& values, BlockWeights* weights);

 private:
  struct Gain {
    int tensor;
    std::vector<float> value, first, second;  // with Adam's moments
  };
  std::vector<Gain> gains_;
  std::vector<Tensor> gradients_;
};

// Indices of those tensors.
std::vector<int> TrainedGains(const BlockSpec& block);

}  // namespace uniquanf::distill

#endif  // UNIQUANF_WORKER_DISTILL_NORM_GAINS_H_
