#include "worker/distill/norm_gains.h"

#include <set>
#include <utility>
#include <variant>

#include "common/base/status.h"
#include "worker/quant/adam.h"

namespace uniquanf::distill {

std::vector<int> TrainedGains(const BlockSpec& block) {
  std::set<int> gains;
  for (const Node& node : block.nodes) {
    const auto* norm = std::get_if<NormNode>(&node);
    if (norm == nullptr || norm->weight < 0) continue;
    const TensorSpec& tensor = block.tensors[norm->weight];
    if (tensor.stored.IsPlain() && tensor.stored.constant.empty()) gains.insert(norm->weight);
  }
  return {gains.begin(), gains.end()};
}

absl::StatusOr<NormGains> NormGains::Create(Backend* backend, const BlockSpec& block,
                                            const BlockWeights& weights) {
  NormGains gains;
  gains.gradients_.resize(block.tensors.size());
  for (const int tensor : TrainedGains(block)) {
    Gain gain;
    gain.tensor = tensor;
    UQ_ASSIGN_OR_RETURN(gain.value, weights[tensor].ToFloats());
    gain.first.assign(gain.value.size(), 0.0f);
    gain.second.assign(gain.value.size(), 0.0f);
    UQ_ASSIGN_OR_RETURN(
        gains.gradients_[tensor],
        Tensor::Allocate(backend, DType::kFloat32, {static_cast<int64_t>(gain.value.size())}));
    gains.gains_.push_back(std::move(gain));
  }
  return gains;
}

absl::Status NormGains::Update(const quant::LatentStep& step, BlockWeights* weights) {
  const quant::AdamStep adam = quant::MakeAdamStep(step.scale_rate, step.bias_correction1,
                                                   step.bias_correction2, quant::kLatentBeta2);
  for (Gain& gain : gains_) {
    UQ_ASSIGN_OR_RETURN(const std::vector<float> gradient, gradients_[gain.tensor].ToFloats());
    for (size_t i = 0; i < gradient.size(); ++i) {
      quant::AdamUpdate(adam, gradient[i], &gain.value[i], &gain.first[i], &gain.second[i]);
    }
    UQ_RETURN_IF_ERROR((*weights)[gain.tensor].CopyFromFloats(gain.value.data()));
  }
  return absl::OkStatus();
}

NormGains::Values NormGains::Save() const {
  Values values(gradients_.size());
  for (const Gain& gain : gains_) values[gain.tensor] = gain.value;
  return values;
}

absl::Status NormGains::Restore(const Values& values, BlockWeights* weights) {
  for (Gain& gain : gains_) {
    gain.value = values[gain.tensor];
    UQ_RETURN_IF_ERROR((*weights)[gain.tensor].CopyFromFloats(gain.value.data()));
  }
  return absl::OkStatus();
}

}  // namespace uniquanf::distill
