#include "worker/task/layer_scale.h"

#include <utility>

#include "common/base/check.h"
#include "common/base/status.h"
#include "worker/quant/folding.h"
#include "worker/quant/start.h"
#include "worker/task/layer_shard.h"

namespace uniquanf {
namespace {

// Of the stored tensor that holds tensor t of the layer; F32 for a constant.
absl::StatusOr<SafetensorsDType> StoredDType(const LayerTask& task, int t) {
  const TensorSpec& tensor = task.block().tensors[t];
  if (!tensor.stored.constant.empty()) return SafetensorsDType::kF32;
  UQ_ASSIGN_OR_RETURN(const SourceTensor raw,
                      task.context.checkpoint->FindRaw(task.config().LayerPrefix(task.at.layer) +
                                                       tensor.stored.name));
  return raw.info.dtype;
}

}  // namespace

absl::StatusOr<quant::ScaledBlock> NewScaledBlock(const LayerTask& task, const Loaded& loaded) {
  const BlockSpec& block = task.block();
  quant::ScaledBlock scaled;
  scaled.spec = &block;
  scaled.original = loaded.original.get();
  scaled.quantized.resize(block.tensors.size());
  for (int l = 0; l < block.num_linears(); ++l) {
    scaled.quantized[block.linears[l]] = !SettingsOf(task.plan(), task.modules[l]).full_precision;
  }
  std::vector<SafetensorsDType> dtypes;
  for (size_t t = 0; t < block.tensors.size(); ++t) {
    UQ_ASSIGN_OR_RETURN(const SafetensorsDType dtype, StoredDType(task, static_cast<int>(t)));
    dtypes.push_back(dtype);
  }
  scaled.stored = [dtypes = std::move(dtypes)](int tensor, float value) {
    return RoundedTo(dtypes[tensor], value);
  };
  return scaled;
}

absl::StatusOr<int64_t> FoldBlock(const LayerTask& task, Loaded* loaded,
                                  quant::ScaledBlock* scaled) {
  if (task.plan().spec.folding == Folding::kOff || !task.reconstructs) return 0;
  UQ_ASSIGN_OR_RETURN(const std::vector<std::vector<float>> squares,
                      quant::MeasureSquares(task.env.backend, task.block(), loaded->rope,
                                            loaded->weights, loaded->inputs.x_fp));
  const int64_t num_folded = quant::FoldOutliers(squares, scaled);
  UQ_RETURN_IF_ERROR(UploadChanged(task, *scaled, &loaded->weights));
  return num_folded;
}

absl::Status UploadChanged(const LayerTask& task, const quant::ScaledBlock& scaled,
                           BlockWeights* weights) {
  for (const auto& [t, values] : scaled.changed) {
    UQ_RETURN_IF_ERROR((*weights)[t].CopyFromFloats(values.data()));
  }
  return task.env.backend->Synchronize();
}

absl::StatusOr<std::map<std::string, std::string>> ChangedBytes(const LayerTask& task,
                                                                const quant::ScaledBlock& scaled) {
  std::map<std::string, std::string> bytes;
  for (const auto& [t, values] : scaled.changed) {
    const TensorSpec& tensor = task.block().tensors[t];
    if (tensor.role == TensorRole::kLinear) continue;
    UQ_ASSIGN_OR_RETURN(const SafetensorsDType dtype, StoredDType(task, t));
    std::vector<float> stored = values;
    for (float& value : stored) value -= tensor.stored.added;
    bytes[tensor.stored.name] = AsStored(stored, dtype);
  }
  return bytes;
}

}  // namespace uniquanf
