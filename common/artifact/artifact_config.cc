#include "common/artifact/artifact_config.h"

#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/json_util.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr char kReason[] = "INVALID_MODEL_CONFIG";
constexpr absl::string_view kLayersPrefix = "model.layers.";

// "self_attn.q_proj" of "model.layers.3.self_attn.q_proj"; "" for modules outside the layers.
std::string NameInLayer(absl::string_view name) {
  if (!absl::StartsWith(name, kLayersPrefix)) return "";
  name.remove_prefix(kLayersPrefix.size());
  while (!name.empty() && absl::ascii_isdigit(name.front())) name.remove_prefix(1);
  return name.empty() ? "" : std::string(name.substr(1));
}

struct AnyBcq {
  std::string omitted;  // why not, or ""
  int bits = 0;
  int64_t group_size = -1;  // -1: the whole row
  std::vector<std::string> module_names;
};

// AnyBCQ replaces every linear layer of every block by one of the same precision and group size,
// and its kernels have shape limits (FORMATS: K % 64, N % 64, groups of a multiple of 64 or a row).
AnyBcq DescribeForAnyBcq(const std::vector<ManifestModule>& modules) {
  AnyBcq result;
  std::set<std::string> names;
  bool first = true, all_rows = true, all_same = true;
  for (const ManifestModule& module : modules) {
    const std::string name = NameInLayer(module.name);
    if (name.empty()) continue;
    names.insert(name);
    if (!module.quantized) {
      result.omitted = absl::StrCat(module.name, " is in full precision");
      return result;
    }
    if (first) {
      result.bits = module.bits;
      result.group_size = module.group_size;
      first = false;
    }
    all_same = all_same && module.group_size == result.group_size;
    all_rows = all_rows && module.group_size == module.num_inputs;
    if (module.bits != result.bits) {
      result.omitted = "modules differ in bits";
    } else if (module.num_inputs % 64 != 0 || module.num_outputs % 64 != 0) {
      result.omitted = absl::StrCat(module.name, " has ", module.num_outputs, " x ",
                                    module.num_inputs, " weights; both must be multiples of 64");
    }
    if (!result.omitted.empty()) return result;
  }
  if (first) {
    result.omitted = "no module is quantized";
  } else if (all_rows) {
    result.group_size = -1;
  } else if (!all_same) {
    result.omitted = "modules differ in group size";
  } else if (result.group_size % 64 != 0) {
    result.omitted = absl::StrCat("the group size ", result.group_size, " is no multiple of 64");
  }
  result.module_names.assign(names.begin(), names.end());
  return result;
}

}  // namespace

absl::StatusOr<ArtifactConfig> BuildArtifactConfig(absl::string_view source_config_json,
                                                   const QuantizationSpec& spec,
                                                   const std::vector<ManifestModule>& modules) {
  UQ_ASSIGN_OR_RETURN(nlohmann::json config,
                      ParseJson(PythonJsonToJson(source_config_json), "config.json", kReason));
  if (!config.is_object()) {
    return InvalidInput(kReason, "config.json must hold a JSON object");
  }
  // What they say of the source's weights does not hold of those here.
  const auto text_config = config.find("text_config");
  for (const char* section : {"quantization_config", "compression_config"}) {
    config.erase(section);
    if (text_config != config.end() && text_config->is_object()) text_config->erase(section);
  }
  nlohmann::json quantization = {{"quant_method", kQuantMethod},
                                 {"format_version", 1},
                                 {"bits", spec.bits},
                                 {"group_size", spec.group_size},
                                 {"modules_to_not_convert", nlohmann::json::array()}};
  for (const ManifestModule& module : modules) {
    if (!module.quantized) quantization["modules_to_not_convert"].push_back(module.name);
  }
  config["quantization_config"] = std::move(quantization);

  const AnyBcq anybcq = DescribeForAnyBcq(modules);
  if (anybcq.omitted.empty()) {
    config["anybcq"] = {{"seed_precision", anybcq.bits},
                        {"parent_precision", anybcq.bits},
                        {"group_size", anybcq.group_size},
                        {"arch_config",
                         {{"model_name", "model"},
                          {"layers_name", "layers"},
                          {"module_names", anybcq.module_names}}}};
  }
  return ArtifactConfig{IndentedJson(config), anybcq.omitted};
}

std::string BuildIndexJson(const std::map<std::string, std::string>& tensor_to_file,
                           uint64_t total_size_bytes) {
  OrderedJson json;
  json["metadata"]["total_size"] = total_size_bytes;
  json["weight_map"] = tensor_to_file;
  return IndentedJson(json);
}

}  // namespace uniquanf
