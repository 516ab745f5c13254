#include "worker/model/config_fields.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace uniquanf {

using nlohmann::json;

absl::Status ConfigError(absl::string_view message) {
  return InvalidInput("INVALID_MODEL_CONFIG", absl::StrCat("config.json: ", message));
}

absl::Status Fields::Missing(absl::string_view name) const {
  return ConfigError(absl::StrCat("field ", path_, name, " is missing"));
}

absl::Status Fields::Wrong(absl::string_view name, const json& value,
                           absl::string_view wanted) const {
  return ConfigError(
      absl::StrCat("field ", path_, name, " is ", Text(value), "; it must be ", wanted));
}

const json* Fields::Find(absl::string_view name) const {
  auto it = object_.find(std::string(name));
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

bool Fields::Has(absl::string_view name) const {
  return object_.find(std::string(name)) != object_.end();
}

absl::string_view Fields::FirstOf(std::initializer_list<absl::string_view> names) const {
  for (absl::string_view name : names) {
    if (Find(name) != nullptr) return name;
  }
  return *names.begin();
}

absl::StatusOr<int64_t> Fields::Integer(absl::string_view name, std::optional<int64_t> fallback,
                                        int64_t low, int64_t high) const {
  const json* value = Find(name);
  if (value == nullptr) {
    if (fallback.has_value()) return *fallback;
    return Missing(name);
  }
  const bool fits =
      value->is_number_integer() && (!value->is_number_unsigned() ||
                                     value->get<uint64_t>() <= std::numeric_limits<int64_t>::max());
  if (!fits || value->get<int64_t>() < low || value->get<int64_t>() > high) {
    return Wrong(name, *value, absl::StrCat("an integer from ", low, " to ", high));
  }
  return value->get<int64_t>();
}

absl::StatusOr<double> Fields::Number(absl::string_view name, std::optional<double> fallback,
                                      double low, double high) const {
  const json* value = Find(name);
  if (value == nullptr) {
    if (fallback.has_value()) return *fallback;
    return Missing(name);
  }
  // Written so that NaN fails.
  if (!value->is_number() || !(value->get<double>() >= low && value->get<double>() <= high)) {
    return Wrong(name, *value, absl::StrCat("a number from ", low, " to ", high));
  }
  return value->get<double>();
}

absl::StatusOr<bool> Fields::Boolean(absl::string_view name, bool fallback) const {
  const json* value = Find(name);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return Wrong(name, *value, "true or false");
  return value->get<bool>();
}

absl::StatusOr<std::string> Fields::String(absl::string_view name,
                                           absl::string_view fallback) const {
  const json* value = Find(name);
  if (value == nullptr) return std::string(fallback);
  if (!value->is_string()) return Wrong(name, *value, "a string");
  return value->get<std::string>();
}

absl::StatusOr<std::optional<Fields>> Fields::Object(absl::string_view name) const {
  const json* value = Find(name);
  if (value == nullptr) return std::optional<Fields>();
  if (!value->is_object()) return Wrong(name, *value, "an object");
  return std::optional<Fields>(Fields(*value, absl::StrCat(path_, name, ".")));
}

std::string Fields::Text(const json& value) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

}  // namespace uniquanf
