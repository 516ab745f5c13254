#include "worker/model/source_quantization.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

using nlohmann::json;

constexpr int64_t kMaxBlock = 1 << 20;
// DeepSeek's, where nothing else is said.
constexpr SourceQuantization::Block kDefaultBlock = {128, 128};

absl::Status CannotDequantize(absl::string_view section, absl::string_view what) {
  return InvalidInput(
      "MODEL_ALREADY_QUANTIZED",
      absl::StrCat("config.json has a \"", section, "\" of ", what,
                   ": the model is already quantized in a way that cannot be taken back. Give the "
                   "original checkpoint in float32, float16 or bfloat16, or one in fp8, mxfp4 or "
                   "compressed-tensors (pack-quantized, int-quantized, float-quantized), which are "
                   "dequantized as they are read"));
}

// A list of names that nothing here needs must be one all the same: a file whose section is damaged
// is not to be trusted in the rest of it.
absl::Status CheckNames(const Fields& section, absl::string_view name) {
  const json* value = section.Find(name);
  if (value == nullptr) return absl::OkStatus();
  const bool is_list =
      value->is_array() && std::all_of(value->begin(), value->end(),
                                       [](const json& element) { return element.is_string(); });
  if (is_list) return absl::OkStatus();
  return ConfigError(absl::StrCat("field ", section.path(), name, " is ", Fields::Text(*value),
                                  "; it must be an array of strings"));
}

// {rows, columns}; empty where the field is missing or null.
absl::StatusOr<std::optional<SourceQuantization::Block>> ReadBlock(const Fields& section,
                                                                   absl::string_view name) {
  const json* value = section.Find(name);
  if (value == nullptr) return std::nullopt;
  const auto is_size = [](const json& size) {
    return size.is_number_integer() && size >= 1 && size <= kMaxBlock;
  };
  if (!value->is_array() || value->size() != 2 || !is_size((*value)[0]) || !is_size((*value)[1])) {
    return ConfigError(absl::StrCat("field ", section.path(), name, " is ", Fields::Text(*value),
                                    "; it must be two sizes from 1 to ", kMaxBlock));
  }
  return SourceQuantization::Block{(*value)[0].get<int64_t>(), (*value)[1].get<int64_t>()};
}

absl::Status ParseFp8(const Fields& section, SourceQuantization* out) {
  UQ_ASSIGN_OR_RETURN(const auto block, ReadBlock(section, "weight_block_size"));
  if (block.has_value()) out->blocks.push_back(*block);
  UQ_ASSIGN_OR_RETURN(const std::string format, section.String("fmt", "e4m3"));
  for (const char* known : {"e4m3", "e5m2", "float8_e4m3fn", "float8_e5m2", "e4m3fn"}) {
    if (format == known) return absl::OkStatus();
  }
  return ConfigError(absl::StrCat("field ", section.path(), "fmt is \"", format.substr(0, 100),
                                  "\"; known are e4m3 and e5m2"));
}

// NVIDIA's ModelOpt: of its algorithms only fp8 with one scale a tensor or a row.
absl::Status ParseModelOpt(const Fields& section, absl::string_view name) {
  UQ_ASSIGN_OR_RETURN(std::string algorithm, section.String("quant_algo", ""));
  if (algorithm.empty()) {
    UQ_ASSIGN_OR_RETURN(const auto inner, section.Object("quantization"));
    if (inner.has_value()) {
      UQ_ASSIGN_OR_RETURN(algorithm, inner->String("quant_algo", ""));
    }
  }
  if (algorithm == "FP8" || algorithm == "FP8_PER_CHANNEL_PER_TOKEN") return absl::OkStatus();
  return CannotDequantize(name, absl::StrCat("modelopt's \"", algorithm.substr(0, 100), "\""));
}

absl::StatusOr<SourceQuantization::Scheme> ParseScheme(const Fields& weights,
                                                       absl::string_view section) {
  SourceQuantization::Scheme scheme;
  UQ_ASSIGN_OR_RETURN(const std::string type, weights.String("type", "int"));
  UQ_ASSIGN_OR_RETURN(const int64_t bits, weights.Integer("num_bits", 8, 1, 64));
  UQ_ASSIGN_OR_RETURN(scheme.symmetric, weights.Boolean("symmetric", true));
  UQ_ASSIGN_OR_RETURN(const int64_t group_size, weights.Integer("group_size", -1, -1, kMaxBlock));
  UQ_ASSIGN_OR_RETURN(const std::string strategy,
                      weights.String("strategy", group_size > 0 ? "group" : "channel"));
  scheme.is_float = type == "float";
  scheme.bits = static_cast<int>(bits);
  const bool supported = scheme.is_float ? bits == 8 : bits == 2 || bits == 4 || bits == 8;
  if ((type != "int" && type != "float") || !supported) {
    return CannotDequantize(section, absl::StrCat("compressed-tensors with weights of ", bits,
                                                  " bits of type ", type.substr(0, 100)));
  }
  if (strategy == "group") {
    if (group_size < 1) {
      return ConfigError(absl::StrCat("field ", weights.path(),
                                      "group_size is missing, which strategy group needs"));
    }
    scheme.group_size = group_size;
  } else if (strategy != "tensor" && strategy != "channel" && strategy != "block") {
    return CannotDequantize(
        section, absl::StrCat("compressed-tensors with strategy ", strategy.substr(0, 100)));
  }
  return scheme;
}

absl::Status CheckFormat(absl::string_view format, absl::string_view section) {
  for (const char* known : {"pack-quantized", "int-quantized", "float-quantized", "naive-quantized",
                            "mixed-precision", "dense", ""}) {
    if (format == known) return absl::OkStatus();
  }
  return CannotDequantize(
      section, absl::StrCat("compressed-tensors in format \"", format.substr(0, 100), "\""));
}

absl::Status ParseGroup(const Fields& group, absl::string_view section, SourceQuantization* out) {
  UQ_RETURN_IF_ERROR(CheckNames(group, "targets"));
  UQ_ASSIGN_OR_RETURN(const std::string format, group.String("format", ""));
  UQ_RETURN_IF_ERROR(CheckFormat(format, section));
  UQ_ASSIGN_OR_RETURN(const std::optional<Fields> weights, group.Object("weights"));
  if (!weights.has_value()) return absl::OkStatus();  // of activations alone
  UQ_ASSIGN_OR_RETURN(const auto block, ReadBlock(*weights, "block_structure"));
  if (block.has_value()) out->blocks.push_back(*block);
  UQ_ASSIGN_OR_RETURN(SourceQuantization::Scheme scheme, ParseScheme(*weights, section));
  out->schemes.push_back(scheme);
  return absl::OkStatus();
}

absl::Status ParseCompressedTensors(const Fields& section, absl::string_view name,
                                    SourceQuantization* out) {
  UQ_ASSIGN_OR_RETURN(const std::string format, section.String("format", ""));
  UQ_RETURN_IF_ERROR(CheckFormat(format, name));
  UQ_ASSIGN_OR_RETURN(const std::optional<Fields> sparsity, section.Object("sparsity_config"));
  if (sparsity.has_value()) {
    UQ_ASSIGN_OR_RETURN(const std::string sparse, sparsity->String("format", "dense"));
    if (sparse != "dense") {
      return CannotDequantize(
          name, absl::StrCat("compressed-tensors, sparse as ", sparse.substr(0, 100)));
    }
  }
  const json* transform = section.Find("transform_config");
  if (transform != nullptr && !transform->empty() &&
      !transform->value("config_groups", json()).empty()) {
    return CannotDequantize(name, "compressed-tensors with transforms of the activations");
  }
  UQ_ASSIGN_OR_RETURN(const std::optional<Fields> groups, section.Object("config_groups"));
  if (!groups.has_value()) {
    if (sparsity.has_value()) return absl::OkStatus();  // neither sparse nor quantized
    return ConfigError(absl::StrCat("field ", section.path(), "config_groups is missing"));
  }
  for (const auto& [group_name, value] : groups->object().items()) {
    UQ_ASSIGN_OR_RETURN(const std::optional<Fields> group, groups->Object(group_name));
    if (group.has_value()) UQ_RETURN_IF_ERROR(ParseGroup(*group, name, out));
  }
  return absl::OkStatus();
}

// config.json's dtype, which the weights had before.
absl::StatusOr<SafetensorsDType> ParseDType(const Fields& fields) {
  UQ_ASSIGN_OR_RETURN(const std::string dtype,
                      fields.String(fields.FirstOf({"dtype", "torch_dtype"}), ""));
  if (dtype == "float16") return SafetensorsDType::kF16;
  if (dtype == "float32") return SafetensorsDType::kF32;
  return SafetensorsDType::kBF16;
}

absl::StatusOr<SourceQuantization> ParseSection(const Fields& section, absl::string_view name) {
  SourceQuantization out;
  const bool old = section.path() == "compression_config.";
  UQ_ASSIGN_OR_RETURN(out.method, section.String("quant_method", old ? "compressed-tensors" : ""));
  for (const char* list : {"modules_to_not_convert", "ignored_layers", "ignore"}) {
    UQ_RETURN_IF_ERROR(CheckNames(section, list));
  }
  if (out.method == "fp8" || out.method == "fbgemm_fp8") {
    UQ_RETURN_IF_ERROR(ParseFp8(section, &out));
  } else if (out.method == "modelopt") {
    UQ_RETURN_IF_ERROR(ParseModelOpt(section, name));
  } else if (out.method == "compressed-tensors") {
    UQ_RETURN_IF_ERROR(ParseCompressedTensors(section, name, &out));
  } else if (out.method != "mxfp4") {
    return CannotDequantize(name,
                            out.method.empty()
                                ? "no quant_method"
                                : absl::StrCat("quant_method \"", out.method.substr(0, 100), "\""));
  }
  return out;
}

}  // namespace

absl::StatusOr<SourceQuantization> ParseSourceQuantization(const Fields& root) {
  if (root.Find("anyprec") != nullptr) return CannotDequantize("anyprec", "Any-Precision");
  UQ_ASSIGN_OR_RETURN(const std::optional<Fields> text, root.Object("text_config"));
  std::vector<std::pair<const Fields*, const char*>> found;
  for (const Fields* fields : {&root, text.has_value() ? &*text : nullptr}) {
    for (const char* name : {"quantization_config", "compression_config"}) {
      if (fields != nullptr && fields->Find(name) != nullptr) found.emplace_back(fields, name);
    }
  }
  SourceQuantization out;
  out.blocks = {kDefaultBlock};
  if (!found.empty()) {
    const auto [fields, name] = found[0];
    for (const auto& [other, other_name] : found) {
      if (*other->Find(other_name) == *fields->Find(name)) continue;
      return ConfigError(absl::StrCat("fields ", fields->path(), name, " and ", other->path(),
                                      other_name, " differ; remove the one that does not hold"));
    }
    UQ_ASSIGN_OR_RETURN(const std::optional<Fields> section, fields->Object(name));
    UQ_ASSIGN_OR_RETURN(out, ParseSection(*section, name));
  }
  UQ_ASSIGN_OR_RETURN(out.dtype, ParseDType(root));
  if (text.has_value() && root.Find("dtype") == nullptr && root.Find("torch_dtype") == nullptr) {
    UQ_ASSIGN_OR_RETURN(out.dtype, ParseDType(*text));
  }
  return out;
}

}  // namespace uniquanf
