#include "common/base/violations.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr char kViolationsUrl[] = "uniquanf/violations";

}  // namespace

absl::Status WithViolations(absl::Status status, const std::vector<FieldViolation>& violations) {
  if (status.ok() || violations.empty()) return status;
  nlohmann::json list = nlohmann::json::array();
  for (const FieldViolation& violation : violations) {
    list.push_back({violation.field, violation.description});
  }
  // Values of users stand in descriptions: bytes that are not UTF-8 are replaced.
  status.SetPayload(kViolationsUrl, absl::Cord(list.dump(
                                        -1, ' ', false, nlohmann::json::error_handler_t::replace)));
  return status;
}

std::vector<FieldViolation> FieldViolations(const absl::Status& status) {
  std::vector<FieldViolation> violations;
  const auto payload = status.GetPayload(kViolationsUrl);
  if (!payload.has_value()) return violations;
  const auto list =
      nlohmann::json::parse(std::string(*payload), nullptr, /*allow_exceptions=*/false);
  for (const auto& entry : list) {
    violations.push_back({entry.at(0).get<std::string>(), entry.at(1).get<std::string>()});
  }
  return violations;
}

absl::Status InvalidField(absl::string_view reason, absl::string_view field,
                          absl::string_view description) {
  return WithViolations(InvalidInput(reason, description),
                        {{std::string(field), std::string(description)}});
}

void Violations::Add(absl::string_view reason, absl::string_view field,
                     absl::string_view description) {
  const auto same = [field](const FieldViolation& violation) { return violation.field == field; };
  if (std::any_of(found_.begin(), found_.end(), same)) return;
  if (found_.empty()) reason_ = std::string(reason);
  found_.push_back({std::string(field), std::string(description)});
}

void Violations::Merge(const absl::Status& status, absl::string_view prefix) {
  if (status.ok()) return;
  const std::vector<FieldViolation> parts = FieldViolations(status);
  const std::string reason = ErrorReason(status);
  if (parts.empty()) Add(reason, absl::StripSuffix(prefix, "."), status.message());
  for (const FieldViolation& part : parts) {
    Add(reason, absl::StrCat(prefix, part.field), part.description);
  }
}

absl::Status Violations::status() const {
  if (found_.empty()) return absl::OkStatus();
  std::string message = found_.front().description;
  if (found_.size() > 1) {
    absl::StrAppend(&message, " (wrong as well: ",
                    absl::StrJoin(found_.begin() + 1, found_.end(), ", ",
                                  [](std::string* out, const FieldViolation& violation) {
                                    absl::StrAppend(out, violation.field);
                                  }),
                    ")");
  }
  return WithViolations(InvalidInput(reason_, message), found_);
}

}  // namespace uniquanf
