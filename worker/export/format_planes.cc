// `lut-gemm` and `anybcq`: the runtimes whose layout the artifact has; tensors are renamed or stay.
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/export/export_format.h"

namespace uniquanf {
namespace {

// bWeight u32 [K/32, n, N], alpha f16 [G, n, N], q_bias f16 [G, N] = the shift.
class LutGemm : public TensorFormat {
 public:
  absl::Status Plan(const Manifest& manifest, ConfigJson* config) override {
    ConfigJson modules = ConfigJson::object();
    for (const ManifestModule& module : manifest.modules) {
      if (!module.quantized) continue;
      if (module.num_inputs % 32 != 0) {
        return NotPossible(module.name,
                           absl::StrCat("lut-gemm packs whole words; ", module.num_inputs,
                                        " inputs are no multiple of 32"));
      }
      modules[module.name] = {{"bits", module.bits}, {"group_size", module.group_size}};
    }
    (*config)["lut_gemm"] = modules;
    return absl::OkStatus();
  }

  std::vector<SafetensorsWriter::Declaration> Declare(const ManifestModule& module) const override {
    const int64_t n = module.bits, N = module.num_outputs;
    const int64_t groups = module.num_inputs / module.group_size;
    return {{module.name + ".bWeight", SafetensorsDType::kI32, {module.num_inputs / 32, n, N}},
            {module.name + ".alpha", SafetensorsDType::kF16, {groups, n, N}},
            {module.name + ".q_bias", SafetensorsDType::kF16, {groups, N}}};
  }

  std::vector<std::string> Convert(const ManifestModule& module, const PackedLinear& packed,
                                   Deviation* deviation) const override {
    deviation->num_weights += packed.num_outputs * packed.num_inputs;
    return {BytesOf(packed.qweight), BytesOf(packed.alpha), BytesOf(packed.beta)};
  }
};

class AnyBcq : public TensorFormat {
 public:
  absl::Status Plan(const Manifest& manifest, ConfigJson* config) override {
    if (!manifest.anybcq_omitted.empty()) {
      return InvalidInput("EXPORT_NOT_POSSIBLE", absl::StrCat("anybcq cannot read this artifact: ",
                                                              manifest.anybcq_omitted));
    }
    // As BuildArtifactConfig states them: all modules alike.
    ConfigJson names = ConfigJson::array();
    int bits = 0;
    int64_t group = -1;
    for (const ManifestModule& module : manifest.modules) {
      if (!module.quantized) continue;
      bits = module.bits;
      group = module.group_size == module.num_inputs ? -1 : module.group_size;
      constexpr absl::string_view kFirst = "model.layers.0.";
      if (absl::StartsWith(module.name, kFirst)) names.push_back(module.name.substr(kFirst.size()));
    }
    ConfigJson anybcq;
    anybcq["seed_precision"] = bits;
    anybcq["parent_precision"] = bits;
    anybcq["group_size"] = group;
    anybcq["arch_config"] = {
        {"model_name", "model"}, {"layers_name", "layers"}, {"module_names", names}};
    (*config)["anybcq"] = anybcq;
    return absl::OkStatus();
  }

  std::vector<SafetensorsWriter::Declaration> Declare(const ManifestModule& module) const override {
    PackedLinear packed;
    packed.bits = module.bits;
    packed.num_outputs = module.num_outputs;
    packed.num_inputs = module.num_inputs;
    packed.group_size = module.group_size;
    return PackedTensors(module.name, packed);
  }

  std::vector<std::string> Convert(const ManifestModule& module, const PackedLinear& packed,
                                   Deviation* deviation) const override {
    deviation->num_weights += packed.num_outputs * packed.num_inputs;
    std::vector<std::string> bytes;
    for (const auto& tensor : Declare(module)) {
      bytes.push_back(PackedTensorBytes(module.name, packed, tensor.name));
    }
    return bytes;
  }
};

}  // namespace

std::unique_ptr<TensorFormat> NewLutGemm() { return std::make_unique<LutGemm>(); }
std::unique_ptr<TensorFormat> NewAnyBcq() { return std::make_unique<AnyBcq>(); }

}  // namespace uniquanf
