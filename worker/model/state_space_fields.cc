#include "worker/model/state_space_fields.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace uniquanf {

using nlohmann::json;

namespace {

// A number, or infinity as transformers 5 writes it: {"__float__": "Infinity"}.
absl::StatusOr<float> Limit(const json& value) {
  constexpr double kLargest = 3.4e38;
  if (value.is_number()) {
    return static_cast<float>(std::clamp(value.get<double>(), 0.0, kLargest));
  }
  if (value.is_object() && value.value("__float__", "") == "Infinity") {
    return static_cast<float>(kLargest);
  }
  return ConfigError(
      absl::StrCat("time_step_limit has ", Fields::Text(value), "; it must be two numbers"));
}

}  // namespace

StateSpaceNames MambaNames() {
  StateSpaceNames names;
  names.heads = "mamba_n_heads";
  names.head_dim = "mamba_d_head";
  names.groups = "mamba_n_groups";
  names.state = "mamba_d_state";
  names.taps = "mamba_d_conv";
  names.conv_bias = "mamba_conv_bias";
  names.bias = "mamba_proj_bias";
  return names;
}

absl::Status ReadStateSpace(const Fields& fields, const StateSpaceNames& names,
                            CommonFields* common) {
  RecurrentTraits& space = common->block.recurrent;
  space.kind = RecurrentTraits::Kind::kStateSpace;
  UQ_ASSIGN_OR_RETURN(space.num_heads, fields.Integer(names.heads, 128, 1, kMaxHeads));
  UQ_ASSIGN_OR_RETURN(space.value_dim, fields.Integer(names.head_dim, 64, 1, kMaxHeadDim));
  UQ_ASSIGN_OR_RETURN(space.num_key_heads, fields.Integer(names.groups, 1, 1, kMaxHeads));
  UQ_ASSIGN_OR_RETURN(space.key_dim, fields.Integer(names.state, 128, 1, 4096));
  UQ_ASSIGN_OR_RETURN(space.taps, fields.Integer(names.taps, 4, 1, 64));
  UQ_ASSIGN_OR_RETURN(space.conv_bias, fields.Boolean(names.conv_bias, true));
  UQ_ASSIGN_OR_RETURN(space.bias, fields.Boolean(names.bias, false));
  if (space.num_heads % space.num_key_heads != 0) {
    return ConfigError(absl::StrCat(names.groups, " does not divide ", names.heads));
  }
  if (!names.width.empty()) {
    const int64_t width = int64_t{space.num_heads} * space.value_dim;
    UQ_ASSIGN_OR_RETURN(const int64_t wanted,
                        fields.Integer(names.width, width, 1, kMaxIntermediate));
    if (wanted != width) {
      return ConfigError(absl::StrCat(names.width, " = ", wanted, " is not ", names.heads,
                                      " times ", names.head_dim));
    }
  }
  if (const json* limits = fields.Find("time_step_limit"); limits != nullptr) {
    if (!limits->is_array() || limits->size() != 2) {
      return ConfigError("field time_step_limit must be an array of two numbers");
    }
    UQ_ASSIGN_OR_RETURN(space.low, Limit((*limits)[0]));
    UQ_ASSIGN_OR_RETURN(space.high, Limit((*limits)[1]));
  }
  space.norm = common->block.norm;
  return absl::OkStatus();
}

}  // namespace uniquanf
