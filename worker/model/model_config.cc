#include "worker/model/model_config.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/json_util.h"
#include "common/base/status.h"
#include "worker/model/config_fields.h"
#include "worker/model/families/family.h"

namespace uniquanf {
namespace {

using nlohmann::json;

absl::Status UnsupportedArchitecture(absl::string_view field, absl::string_view value) {
  std::vector<std::string> names;
  for (const Family* family : Families()) names.push_back(family->architecture);
  return InvalidInput(
      "UNSUPPORTED_ARCHITECTURE",
      absl::StrCat("config.json: ", field, " \"", value.substr(0, 100),
                   "\" is not supported; supported are ", absl::StrJoin(names, ", ")));
}

absl::StatusOr<const Family*> FindFamily(const Fields& fields) {
  const Family* by_architecture = nullptr;
  if (const json* architectures = fields.Find("architectures"); architectures != nullptr) {
    if (!architectures->is_array() || architectures->size() != 1 ||
        !architectures->front().is_string()) {
      return ConfigError(absl::StrCat("field architectures is ", Fields::Text(*architectures),
                                      "; it must be an array of one string"));
    }
    const std::string name = architectures->front().get<std::string>();
    for (const Family* family : Families()) {
      if (name == family->architecture) by_architecture = family;
    }
    if (by_architecture == nullptr) return UnsupportedArchitecture("architecture", name);
  }
  UQ_ASSIGN_OR_RETURN(std::string model_type, fields.String("model_type", ""));
  if (model_type.empty()) {
    if (by_architecture != nullptr) return by_architecture;
    return ConfigError("it names neither architectures nor model_type");
  }
  for (const Family* family : Families()) {
    if (model_type != family->model_type) continue;
    if (by_architecture != nullptr && by_architecture != family) {
      return ConfigError(absl::StrCat("architecture ", by_architecture->architecture,
                                      " does not belong to model_type ", model_type));
    }
    return family;
  }
  return UnsupportedArchitecture("model_type", model_type);
}

absl::Status RefuseQuantized(const Fields& fields) {
  for (const char* name : {"quantization_config", "compression_config", "anyprec"}) {
    if (fields.Find(name) == nullptr) continue;
    return InvalidInput("MODEL_ALREADY_QUANTIZED",
                        absl::StrCat("config.json has a \"", name,
                                     "\": the model is already quantized. Give the original "
                                     "checkpoint in float32, float16 or bfloat16"));
  }
  return absl::OkStatus();
}

}  // namespace

std::string ModelConfig::LayerPrefix(int layer) const { return absl::StrCat(layers, layer, "."); }

std::string ModelConfig::ModuleName(int layer, int l) const {
  return absl::StrCat(layers, layer, ".", blocks[layer].linear(l).module);
}

std::vector<std::string> ModelConfig::ModuleNames(int layer) const {
  std::vector<std::string> names;
  for (int l = 0; l < blocks[layer].num_linears(); ++l) names.push_back(ModuleName(layer, l));
  return names;
}

absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view config_json) {
  UQ_ASSIGN_OR_RETURN(const json root,
                      ParseJson(config_json, "config.json", "INVALID_MODEL_CONFIG"));
  if (!root.is_object()) return ConfigError("it must hold a JSON object");
  const Fields fields(root, "");
  UQ_RETURN_IF_ERROR(RefuseQuantized(fields));
  UQ_ASSIGN_OR_RETURN(const Family* family, FindFamily(fields));
  UQ_ASSIGN_OR_RETURN(ModelConfig config, family->parse(fields));
  config.model_type = family->model_type;
  config.architecture = family->architecture;
  return config;
}

}  // namespace uniquanf
