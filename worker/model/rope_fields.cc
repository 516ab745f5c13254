// Rotary settings of a config.json, in their old and new spellings, as a RopeConfig.
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/model/family_fields.h"

namespace uniquanf {

using nlohmann::json;

namespace {

constexpr absl::string_view kOriginal = "original_max_position_embeddings";

// Yarn's growth of the attention's temperature.
double YarnTemperature(double factor, double scale) {
  return factor <= 1 ? 1.0 : 0.1 * scale * std::log(factor) + 1.0;
}

absl::Status ReadLlama3(const Fields& scaling, RopeConfig* rope) {
  UQ_ASSIGN_OR_RETURN(rope->low_freq_factor,
                      scaling.Number("low_freq_factor", std::nullopt, 1e-3, 1e6));
  UQ_ASSIGN_OR_RETURN(rope->high_freq_factor,
                      scaling.Number("high_freq_factor", std::nullopt, 1e-3, 1e6));
  UQ_ASSIGN_OR_RETURN(rope->original_max_position_embeddings,
                      scaling.Number(kOriginal, std::nullopt, 1.0, kMaxPositions));
  return absl::OkStatus();
}

absl::Status ReadYarn(const Fields& scaling, RopeConfig* rope) {
  UQ_ASSIGN_OR_RETURN(rope->beta_fast, scaling.Number("beta_fast", 32.0, 1e-3, 1e6));
  UQ_ASSIGN_OR_RETURN(rope->beta_slow, scaling.Number("beta_slow", 1.0, 1e-3, 1e6));
  UQ_ASSIGN_OR_RETURN(rope->truncate, scaling.Boolean("truncate", true));
  UQ_ASSIGN_OR_RETURN(const double scale, scaling.Number("mscale", 0.0, 0.0, 1e6));
  UQ_ASSIGN_OR_RETURN(const double all, scaling.Number("mscale_all_dim", 0.0, 0.0, 1e6));
  const double automatic = scale != 0 && all != 0 ? YarnTemperature(rope->factor, scale) /
                                                        YarnTemperature(rope->factor, all)
                                                  : YarnTemperature(rope->factor, 1);
  UQ_ASSIGN_OR_RETURN(rope->attention_factor,
                      scaling.Number("attention_factor", automatic, 1e-6, 1e6));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<double>> ReadFactors(const Fields& scaling, absl::string_view name,
                                                int width) {
  const json* array = scaling.Find(name);
  const absl::Status wrong =
      ConfigError(absl::StrCat("field ", scaling.path(), name, " must be an array of ", width / 2,
                               " positive numbers, one for each frequency"));
  if (array == nullptr || !array->is_array() || array->size() != static_cast<size_t>(width / 2)) {
    return wrong;
  }
  std::vector<double> factors;
  for (const json& value : *array) {
    if (!value.is_number() || !(value.get<double>() > 1e-6 && value.get<double>() < 1e9)) {
      return wrong;
    }
    factors.push_back(value.get<double>());
  }
  return factors;
}

absl::Status ReadLongRope(const Fields& scaling, double max_positions, RopeConfig* rope) {
  UQ_ASSIGN_OR_RETURN(rope->short_factor, ReadFactors(scaling, "short_factor", rope->width));
  UQ_ASSIGN_OR_RETURN(rope->long_factor, ReadFactors(scaling, "long_factor", rope->width));
  const double original = rope->original_max_position_embeddings;
  UQ_ASSIGN_OR_RETURN(const double factor,
                      scaling.Number("factor", max_positions / original, 1e-6, 1e9));
  const double automatic =
      factor <= 1 || original <= 1 ? 1.0 : std::sqrt(1 + std::log(factor) / std::log(original));
  UQ_ASSIGN_OR_RETURN(rope->attention_factor,
                      scaling.Number("attention_factor", automatic, 1e-6, 1e6));
  // Phi-3.5-MoE says both directly.
  UQ_ASSIGN_OR_RETURN(rope->long_attention_factor,
                      scaling.Number("long_mscale", rope->attention_factor, 1e-6, 1e6));
  UQ_ASSIGN_OR_RETURN(rope->attention_factor,
                      scaling.Number("short_mscale", rope->attention_factor, 1e-6, 1e6));
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadRopeType(const Fields& scaling) {
  UQ_ASSIGN_OR_RETURN(const std::string old_type, scaling.String("type", "default"));
  return scaling.String("rope_type", old_type);
}

// `fields` are the model's, for what some families say there.
absl::Status ReadScaling(const Fields& scaling, const Fields& fields,
                         const FamilyDefaults& defaults, RopeConfig* rope) {
  UQ_ASSIGN_OR_RETURN(rope->type, ReadRopeType(scaling));
  const std::string& type = rope->type;
  // Three rows of positions for images and videos: equal in text.
  if (type == "mrope") rope->type = "default";
  // Older names of what scales by lists.
  if (type == "su" || (type == "yarn" && scaling.Find("long_factor") != nullptr)) {
    rope->type = "longrope";
  }
  if (type == "default") return absl::OkStatus();
  UQ_ASSIGN_OR_RETURN(
      const int64_t positions,
      fields.Integer(defaults.names.positions, defaults.max_positions, 1, kMaxPositions));
  UQ_ASSIGN_OR_RETURN(double original, scaling.Number(kOriginal, 0.0, 0.0, kMaxPositions));
  if (original == 0) {
    UQ_ASSIGN_OR_RETURN(
        original, fields.Number(kOriginal, static_cast<double>(positions), 1.0, kMaxPositions));
  }
  rope->original_max_position_embeddings = original;
  if (type == "longrope") return ReadLongRope(scaling, static_cast<double>(positions), rope);
  if (type == "proportional") {
    UQ_ASSIGN_OR_RETURN(rope->factor, scaling.Number("factor", 1.0, 1e-3, 1e6));
    return absl::OkStatus();
  }
  if (type == "dynamic") {
    UQ_ASSIGN_OR_RETURN(const double alpha, scaling.Number("alpha", 0.0, 0.0, 1e9));
    if (alpha > 0 && rope->width > 2) {  // a larger base for all lengths
      rope->theta *= std::pow(alpha, rope->width / (rope->width - 2.0));
      rope->type = "default";
      return absl::OkStatus();
    }
  }
  std::optional<double> factor;
  if (type == "yarn" && static_cast<double>(positions) > original) {
    factor = static_cast<double>(positions) / original;
  }
  UQ_ASSIGN_OR_RETURN(rope->factor, scaling.Number("factor", factor, 1.0, 1e6));
  if (type == "linear" || type == "dynamic") return absl::OkStatus();
  if (type == "llama3") return ReadLlama3(scaling, rope);
  if (type == "yarn") return ReadYarn(scaling, rope);
  return ConfigError(
      absl::StrCat("rotary type \"", type.substr(0, 60),
                   "\" is not supported; supported are default, linear, dynamic, "
                   "llama3, yarn, longrope, proportional. If it changes nothing up to "
                   "some length, remove it from config.json and set "
                   "max_position_embeddings to that length"));
}

absl::Status SetWidth(double rotated, int head_dim, RopeConfig* rope) {
  rope->width = static_cast<int>(head_dim * rotated);
  if (rope->width < 2 || rope->width % 2 != 0) {
    return ConfigError(absl::StrCat("partial_rotary_factor = ", rotated, " of a head of ", head_dim,
                                    " elements is not an even number of them"));
  }
  return absl::OkStatus();
}

// The object with rotary parameters, of one kind of layer where they differ; empty: there is none.
absl::StatusOr<std::optional<Fields>> FindScaling(const Fields& fields,
                                                  absl::string_view layer_type) {
  // The newer form holds theta too and wins over the old fields, as in Hugging Face.
  const char* name = fields.Find("rope_parameters") != nullptr ? "rope_parameters" : "rope_scaling";
  UQ_ASSIGN_OR_RETURN(std::optional<Fields> scaling, fields.Object(name));
  if (!scaling.has_value()) return scaling;
  if (!layer_type.empty()) {
    UQ_ASSIGN_OR_RETURN(const std::optional<Fields> of_type, scaling->Object(layer_type));
    if (of_type.has_value()) scaling.emplace(*of_type);
  }
  for (const auto& [key, value] : scaling->object().items()) {
    if (value.is_object()) {
      return ConfigError(absl::StrCat("field ", scaling->path(), key.substr(0, 60),
                                      " is an object; rotary parameters that differ between kinds "
                                      "of layers are not supported"));
    }
  }
  return scaling;
}

}  // namespace

absl::StatusOr<RopeConfig> ReadRope(const Fields& fields, const FamilyDefaults& defaults,
                                    int head_dim, absl::string_view layer_type) {
  RopeConfig rope;
  UQ_ASSIGN_OR_RETURN(rope.theta, fields.Number(defaults.names.theta, defaults.theta, 1e-3, 1e18));
  UQ_ASSIGN_OR_RETURN(double rotated, fields.Number("partial_rotary_factor",
                                                    defaults.rotated.value_or(1), 0.0, 1.0));
  const auto expect_whole = [&] {
    return rotated == 1 || defaults.rotated.has_value()
               ? absl::OkStatus()
               : ConfigError("partial_rotary_factor other than 1 is not supported");
  };
  UQ_RETURN_IF_ERROR(expect_whole());
  UQ_ASSIGN_OR_RETURN(const std::optional<Fields> scaling, FindScaling(fields, layer_type));
  if (!scaling.has_value()) {
    UQ_RETURN_IF_ERROR(SetWidth(rotated, head_dim, &rope));
    return rope;
  }
  UQ_ASSIGN_OR_RETURN(rope.theta, scaling->Number("rope_theta", rope.theta, 1e-3, 1e18));
  UQ_ASSIGN_OR_RETURN(rotated, scaling->Number("partial_rotary_factor", rotated, 0.0, 1.0));
  UQ_ASSIGN_OR_RETURN(const std::string type, scaling->String("rope_type", ""));
  if (type == "proportional") {
    // Angles over the whole head, of which only the first are not zero.
    rope.rotated = static_cast<int>(rotated * head_dim / 2);
    rotated = 1;
  }
  UQ_RETURN_IF_ERROR(expect_whole());
  UQ_RETURN_IF_ERROR(SetWidth(rotated, head_dim, &rope));
  UQ_RETURN_IF_ERROR(ReadScaling(*scaling, fields, defaults, &rope));
  return rope;
}

absl::StatusOr<double> ReadYarnScoreFactor(const Fields& fields) {
  UQ_ASSIGN_OR_RETURN(const std::optional<Fields> scaling, FindScaling(fields, ""));
  if (!scaling.has_value()) return 1.0;
  const absl::StatusOr<std::string> type = ReadRopeType(*scaling);
  if (!type.ok()) return type.status();
  if (*type != "yarn") return 1.0;
  UQ_ASSIGN_OR_RETURN(const double all, scaling->Number("mscale_all_dim", 0.0, 0.0, 1e6));
  UQ_ASSIGN_OR_RETURN(const double factor, scaling->Number("factor", 1.0, 1.0, 1e6));
  return all == 0 ? 1.0 : std::pow(YarnTemperature(factor, all), 2);
}

}  // namespace uniquanf
