// A block's weights on a device.
#include <utility>

#include "common/base/status.h"
#include "worker/model/checkpoint.h"

namespace uniquanf {

DType DeviceDType(TensorRole role, DType act) {
  return role == TensorRole::kVector ? DType::kFloat32 : act;
}

absl::StatusOr<BlockWeights> UploadBlock(Backend* backend, const BlockSpec& spec, DType act,
                                         const HostBlock& block, std::vector<Tensor> linear) {
  BlockWeights weights(spec.tensors.size());
  for (size_t l = 0; l < linear.size(); ++l) weights[spec.linears[l]] = std::move(linear[l]);
  for (size_t t = 0; t < weights.size(); ++t) {
    if (!weights[t].empty()) continue;
    const TensorSpec& tensor = spec.tensors[t];
    UQ_ASSIGN_OR_RETURN(weights[t], Tensor::FromFloats(backend, DeviceDType(tensor.role, act),
                                                       tensor.shape, block[t].data()));
  }
  return weights;
}

absl::StatusOr<BlockWeights> UploadStoredBlock(Backend* backend, const BlockSpec& spec, DType act,
                                               const StoredBlock& block, PackedBlock* packed) {
  BlockWeights weights(spec.tensors.size());
  packed->clear();
  for (size_t t = 0; t < weights.size(); ++t) {
    const TensorSpec& tensor = spec.tensors[t];
    if (t < block.packed.size() && block.packed[t].bits > 0) {
      packed->resize(weights.size());
      UQ_ASSIGN_OR_RETURN((*packed)[t], packed::Upload(backend, block.packed[t]));
      continue;
    }
    UQ_ASSIGN_OR_RETURN(weights[t], Tensor::FromFloats(backend, DeviceDType(tensor.role, act),
                                                       tensor.shape, block.values[t].data()));
  }
  return weights;
}

}  // namespace uniquanf
