#include "worker/model/model_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/base/json_util.h"
#include "common/base/status.h"
#include "worker/model/config_fields.h"
#include "worker/model/families/family.h"
#include "worker/model/supported_architectures.h"

namespace uniquanf {

std::vector<std::string> SupportedArchitectures() {
  std::vector<std::string> names;
  for (const Family* family : Families()) {
    if (family->refusal == nullptr) names.push_back(family->architecture);
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

namespace {

using nlohmann::json;

absl::Status UnsupportedArchitecture(absl::string_view field, absl::string_view value) {
  return InvalidInput("UNSUPPORTED_ARCHITECTURE",
                      absl::StrCat("config.json: ", field, " \"", value.substr(0, 100),
                                   "\" is not supported; supported are ",
                                   absl::StrJoin(SupportedArchitectures(), ", ")));
}

// The name of the one architecture; "" where the field is missing.
absl::StatusOr<std::string> ArchitectureOf(const Fields& fields) {
  const json* architectures = fields.Find("architectures");
  if (architectures == nullptr) return std::string();
  if (!architectures->is_array() || architectures->size() != 1 ||
      !architectures->front().is_string()) {
    return ConfigError(absl::StrCat("field architectures is ", Fields::Text(*architectures),
                                    "; it must be an array of one string"));
  }
  return architectures->front().get<std::string>();
}

absl::StatusOr<const Family*> FindFamily(const Fields& fields) {
  UQ_ASSIGN_OR_RETURN(const std::string architecture, ArchitectureOf(fields));
  UQ_ASSIGN_OR_RETURN(const std::string model_type, fields.String("model_type", ""));
  const Family *by_architecture = nullptr, *by_type = nullptr;
  for (const Family* family : Families()) {
    const bool same_architecture = architecture == family->architecture;
    const bool same_type = model_type == family->model_type;
    if (same_architecture && same_type) return family;
    if (same_architecture && by_architecture == nullptr) by_architecture = family;
    if (same_type && by_type == nullptr) by_type = family;
  }
  if (!architecture.empty() && by_architecture == nullptr) {
    return UnsupportedArchitecture("architecture", architecture);
  }
  if (model_type.empty()) {
    if (by_architecture != nullptr) return by_architecture;
    return ConfigError("it names neither architectures nor model_type");
  }
  if (by_type == nullptr) return UnsupportedArchitecture("model_type", model_type);
  if (by_architecture != nullptr) {
    return ConfigError(
        absl::StrCat("architecture ", architecture, " does not belong to model_type ", model_type));
  }
  return by_type;
}

absl::Status Refuse(const Family& family) {
  return InvalidInput("UNSUPPORTED_ARCHITECTURE",
                      absl::StrCat("config.json: ", family.architecture, " (", family.model_type,
                                   ") is not supported: ", family.refusal));
}

absl::StatusOr<ModelConfig> ParseFamily(const Fields& fields, const Family& family) {
  if (family.refusal != nullptr) return Refuse(family);
  UQ_ASSIGN_OR_RETURN(ModelConfig config, family.parse(fields));
  config.model_type = family.model_type;
  config.architecture = family.architecture;
  return config;
}

// A text model inside another: its fields lie in text_config, its tensors below another prefix.
absl::StatusOr<ModelConfig> ParseNested(const Fields& fields, const Family& outer) {
  UQ_ASSIGN_OR_RETURN(const std::optional<Fields> text, fields.Object("text_config"));
  if (!text.has_value()) return ConfigError("field text_config is missing");
  json inner = text->object();
  if (inner.find("tie_word_embeddings") == inner.end() && fields.Has("tie_word_embeddings")) {
    inner["tie_word_embeddings"] = fields.object()["tie_word_embeddings"];
  }
  const Fields inner_fields(inner, "text_config.");
  UQ_ASSIGN_OR_RETURN(const std::string type, inner_fields.String("model_type", outer.nested_type));
  for (const Family* family : Families()) {
    if (type != family->model_type || family->nested_type != nullptr) continue;
    UQ_ASSIGN_OR_RETURN(ModelConfig config, ParseFamily(inner_fields, *family));
    config.architecture = outer.architecture;
    return config;
  }
  return UnsupportedArchitecture("text_config.model_type", type);
}

absl::StatusOr<ModelConfig> ParseModel(const Fields& fields) {
  UQ_ASSIGN_OR_RETURN(const Family* family, FindFamily(fields));
  if (family->nested_type == nullptr) return ParseFamily(fields, *family);
  const bool nested = family->parse == nullptr || fields.Has("text_config");
  UQ_ASSIGN_OR_RETURN(ModelConfig config,
                      nested ? ParseNested(fields, *family) : ParseFamily(fields, *family));
  // Three layouts of text models beside others are in use.
  config.names = {{"model.", "lm_head"},
                  {"model.language_model.", "lm_head"},
                  {"language_model.model.", "language_model.lm_head"}};
  return config;
}

// Roots that programs put before a model's names or leave out when they save it.
constexpr const char* kRoots[] = {"module.", "_orig_mod.", "base_model.model.", "model."};

void AddOtherRoots(ModelConfig* config) {
  if (config->names.empty()) {
    if (!absl::StartsWith(config->ends.embedding, "model.")) return;
    const std::string& head = config->ends.head;
    config->names = {{"model.", head},
                     {"", head},
                     {"model.language_model.", head},
                     {"language_model.model.", "language_model." + head}};
  }
  const std::vector<ModelConfig::Names> known = config->names;
  for (const char* root : kRoots) {
    for (const ModelConfig::Names& names : known) {
      config->names.push_back({root + names.prefix, root + names.head});
    }
  }
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

int ModelConfig::LayerOf(absl::string_view tensor_name) const {
  if (!absl::ConsumePrefix(&tensor_name, layers)) return -1;
  const size_t dot = tensor_name.find('.');
  int layer = -1;
  if (dot == absl::string_view::npos || !absl::SimpleAtoi(tensor_name.substr(0, dot), &layer)) {
    return -1;
  }
  return layer >= 0 && layer < num_layers ? layer : -1;
}

void ModelConfig::ChooseNames(const std::function<bool(const std::string&)>& has) {
  for (const Names& choice : names) {
    const auto renamed = [&](const std::string& name) {
      if (!absl::StartsWith(name, names[0].prefix)) return name;
      return absl::StrCat(choice.prefix, name.substr(names[0].prefix.size()));
    };
    if (!has(renamed(ends.embedding) + ".weight")) continue;
    for (std::string* name :
         {&ends.embedding, &ends.positions, &ends.embedding_norm, &ends.final_norm, &layers}) {
      if (!name->empty()) *name = renamed(*name);
    }
    ends.head = choice.head;
    return;
  }
}

absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view config_json) {
  UQ_ASSIGN_OR_RETURN(const json root, ParseJson(PythonJsonToJson(config_json), "config.json",
                                                 "INVALID_MODEL_CONFIG"));
  if (!root.is_object()) return ConfigError("it must hold a JSON object");
  const Fields fields(root, "");
  UQ_ASSIGN_OR_RETURN(ModelConfig config, ParseModel(fields));
  AddOtherRoots(&config);
  UQ_ASSIGN_OR_RETURN(config.source, ParseSourceQuantization(fields));
  return config;
}

}  // namespace uniquanf
