#include "worker/task/rounded_model.h"

#include <map>
#include <utility>

#include "common/artifact/layout.h"
#include "common/base/status.h"
#include "worker/quant/method.h"
#include "worker/quant/quantizer.h"

namespace uniquanf {
namespace {

class RoundedModel : public Checkpoint {
 public:
  RoundedModel(Backend* backend, const Checkpoint* original,
               const std::vector<ManifestModule>* modules)
      : backend_(backend), original_(original) {
    for (const ManifestModule& module : *modules) modules_[module.name] = &module;
  }

  const ModelConfig& config() const override { return original_->config(); }
  const std::string& config_json() const override { return original_->config_json(); }
  bool quantized() const override { return true; }
  const std::shared_ptr<ObjectStore>& store() const override { return original_->store(); }

  absl::StatusOr<HostBlock> LoadBlock(int layer) const override {
    UQ_ASSIGN_OR_RETURN(HostBlock block, original_->LoadBlock(layer));
    const BlockSpec& spec = config().blocks[layer];
    for (int l = 0; l < spec.num_linears(); ++l) {
      const auto module = modules_.find(config().ModuleName(layer, l));
      if (module == modules_.end() || !module->second->quantized) continue;
      UQ_RETURN_IF_ERROR(Round(*module->second, &block[spec.linears[l]]));
    }
    return block;
  }
  absl::Status LoadEmbeddingRows(absl::Span<const int32_t> ids, float* out) const override {
    return original_->LoadEmbeddingRows(ids, out);
  }
  absl::StatusOr<std::vector<float>> LoadLmHead() const override { return original_->LoadLmHead(); }
  absl::StatusOr<std::vector<float>> LoadOuter(absl::string_view name) const override {
    return original_->LoadOuter(name);
  }
  absl::StatusOr<SourceTensor> FindRaw(absl::string_view name) const override {
    return original_->FindRaw(name);
  }
  std::vector<std::string> TensorNames() const override { return original_->TensorNames(); }
  const std::vector<ManifestDequantized>& dequantized() const override {
    return original_->dequantized();
  }
  absl::Status CheckTiedHead() const override { return original_->CheckTiedHead(); }

 private:
  absl::Status Round(const ManifestModule& module, std::vector<float>* weight) const {
    const quant::Method& method = quant::MethodOf(QuantizationMethod::kRtn);
    UQ_ASSIGN_OR_RETURN(
        Tensor on_device,
        Tensor::FromFloats(backend_, DType::kFloat32, {module.num_outputs, module.num_inputs},
                           weight->data()));
    UQ_ASSIGN_OR_RETURN(quant::QuantizerState state,
                        quant::NewQuantizerState(backend_, std::move(on_device), module.bits,
                                                 module.group_size, method.trained));
    method.initialize(backend_, quant::InitOptions(), &state);  // min-max
    UQ_ASSIGN_OR_RETURN(const UnifiedLinear unified, quant::Unify(backend_, state));
    Dequantize(Pack(unified), weight->data());
    return absl::OkStatus();
  }

  Backend* const backend_;
  const Checkpoint* const original_;
  std::map<std::string, const ManifestModule*> modules_;
};

}  // namespace

std::unique_ptr<Checkpoint> NewRoundedModel(Backend* backend, const Checkpoint* original,
                                            const std::vector<ManifestModule>* modules) {
  return std::make_unique<RoundedModel>(backend, original, modules);
}

}  // namespace uniquanf
