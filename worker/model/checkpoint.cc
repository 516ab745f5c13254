#include "worker/model/checkpoint.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/json_util.h"
#include "common/base/status.h"
#include "worker/model/checkpoint_files.h"
#include "worker/model/checkpoint_layout.h"

namespace uniquanf {
namespace {

constexpr uint64_t kMaxConfigBytes = 4 << 20;

absl::Status CheckFinite(const TensorInfo& info, const std::vector<float>& values) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) continue;
    // The index in the tensor's own dimensions.
    std::vector<int64_t> index(info.shape.size());
    int64_t rest = static_cast<int64_t>(i);
    for (size_t d = info.shape.size(); d-- > 0;) {
      index[d] = rest % info.shape[d];
      rest /= info.shape[d];
    }
    return InvalidInput(
        "WEIGHT_NOT_FINITE",
        absl::StrCat("tensor ", info.name, " holds ", std::isnan(values[i]) ? "NaN" : "an infinity",
                     " at [", absl::StrJoin(index, ", "), "]"));
  }
  return absl::OkStatus();
}

class PlainCheckpoint : public Checkpoint {
 public:
  PlainCheckpoint(std::shared_ptr<ObjectStore> store, std::string config_json, ModelConfig config,
                  TensorMap tensors)
      : store_(std::move(store)),
        config_json_(std::move(config_json)),
        config_(std::move(config)),
        tensors_(std::move(tensors)) {}

  const ModelConfig& config() const override { return config_; }
  const std::string& config_json() const override { return config_json_; }
  bool quantized() const override { return false; }
  const std::shared_ptr<ObjectStore>& store() const override { return store_; }

  absl::StatusOr<HostBlock> LoadBlock(int layer) const override {
    if (layer < 0 || layer >= config_.num_layers) {
      return InvalidInput("LAYER_OUT_OF_RANGE", absl::StrCat("the model has no layer ", layer, " (",
                                                             config_.num_layers, " layers)"));
    }
    const BlockConfig& config = config_.blocks[layer];
    const std::string prefix = LayerPrefix(layer);
    HostBlock block;
    UQ_ASSIGN_OR_RETURN(block.input_norm, Load(prefix + kInputNormSuffix));
    UQ_ASSIGN_OR_RETURN(block.post_norm, Load(prefix + kPostNormSuffix));
    if (config.qk_norm) {
      UQ_ASSIGN_OR_RETURN(block.q_norm, Load(prefix + kQNormSuffix));
      UQ_ASSIGN_OR_RETURN(block.k_norm, Load(prefix + kKNormSuffix));
    }
    for (Linear linear : kAllLinears) {
      const int i = static_cast<int>(linear);
      const std::string module = ModuleName(layer, linear);
      UQ_ASSIGN_OR_RETURN(block.linear[i], Load(module + ".weight"));
      if (config.HasBias(linear)) {
        UQ_ASSIGN_OR_RETURN(block.bias[i], Load(module + ".bias"));
      }
    }
    return block;
  }

  absl::StatusOr<std::vector<float>> LoadEmbedding() const override { return Load(kEmbeddingName); }
  absl::StatusOr<std::vector<float>> LoadFinalNorm() const override { return Load(kFinalNormName); }
  absl::StatusOr<std::vector<float>> LoadLmHead() const override {
    return Load(config_.tie_word_embeddings ? kEmbeddingName : kLmHeadName);
  }

  absl::StatusOr<RawTensor> FindRaw(absl::string_view name) const override {
    auto it = tensors_.find(std::string(name));
    if (it == tensors_.end()) {
      return InvalidInput("TENSOR_NOT_FOUND", absl::StrCat("the checkpoint has no tensor ", name));
    }
    return it->second;
  }

  std::vector<std::string> TensorNames() const override {
    std::vector<std::string> names;
    names.reserve(tensors_.size());
    for (const auto& [name, tensor] : tensors_) names.push_back(name);
    return names;
  }

 private:
  absl::StatusOr<std::vector<float>> Load(absl::string_view name) const {
    UQ_ASSIGN_OR_RETURN(const RawTensor tensor, FindRaw(name));
    std::vector<float> values(tensor.info.num_elements());
    UQ_RETURN_IF_ERROR(tensor.file->ReadFloat(tensor.info, values.data()));
    UQ_RETURN_IF_ERROR(CheckFinite(tensor.info, values));
    return values;
  }

  std::shared_ptr<ObjectStore> store_;
  std::string config_json_;
  ModelConfig config_;
  TensorMap tensors_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(std::shared_ptr<ObjectStore> store,
                                                             bool allow_quantized) {
  UQ_ASSIGN_OR_RETURN(std::string config_json,
                      ReadModelText(store.get(), "config.json", kMaxConfigBytes));
  UQ_ASSIGN_OR_RETURN(ModelConfig config, ParseModelConfig(config_json));
  UQ_ASSIGN_OR_RETURN(TensorMap tensors, OpenCheckpointFiles(store));
  const std::vector<ExpectedTensor> expected = ExpectedTensors(config);
  // First what should not be there: a quantized model lacks weights too, and this says why.
  UQ_RETURN_IF_ERROR(CheckNothingElse(tensors, expected));
  for (const ExpectedTensor& tensor : expected) UQ_RETURN_IF_ERROR(CheckTensor(tensors, tensor));
  return std::make_unique<PlainCheckpoint>(std::move(store), std::move(config_json),
                                           std::move(config), std::move(tensors));
}

absl::StatusOr<BlockWeights> UploadBlock(Backend* backend, const BlockConfig& config, DType act,
                                         const HostBlock& block) {
  BlockWeights weights;
  auto upload_vector = [&](const std::vector<float>& values) -> absl::StatusOr<Tensor> {
    return Tensor::FromFloats(backend, DType::kFloat32, {static_cast<int64_t>(values.size())},
                              values.data());
  };
  for (Linear linear : kAllLinears) {
    const int i = static_cast<int>(linear);
    const auto [n, k] = config.LinearShape(linear);
    UQ_ASSIGN_OR_RETURN(weights.linear[i],
                        Tensor::FromFloats(backend, act, {n, k}, block.linear[i].data()));
    if (config.HasBias(linear)) {
      UQ_ASSIGN_OR_RETURN(weights.bias[i], upload_vector(block.bias[i]));
    }
  }
  UQ_ASSIGN_OR_RETURN(weights.input_norm, upload_vector(block.input_norm));
  UQ_ASSIGN_OR_RETURN(weights.post_norm, upload_vector(block.post_norm));
  if (config.qk_norm) {
    UQ_ASSIGN_OR_RETURN(weights.q_norm, upload_vector(block.q_norm));
    UQ_ASSIGN_OR_RETURN(weights.k_norm, upload_vector(block.k_norm));
  }
  return weights;
}

}  // namespace uniquanf
