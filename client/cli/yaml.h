// YAML in and out, as the JSON that it stands for. Thread safety: free functions, no state.
// Errors: kInvalidArgument (INVALID_YAML) names the line.
#ifndef UNIQUANF_CLIENT_CLI_YAML_H_
#define UNIQUANF_CLIENT_CLI_YAML_H_

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace uniquanf::cli {

// One document, by YAML 1.2's core schema: plain true, false, null and numbers are what they look
// like, all else and what is quoted is a string. JSON is YAML. Bounded: 4 MiB, 100 levels and
// 100,000 values (aliases counted as often as they are used), no key twice.
absl::StatusOr<nlohmann::json> ParseYaml(absl::string_view text);

// `document` as YAML; strings that would be read as something else are quoted.
std::string ToYaml(const nlohmann::ordered_json& document);

}  // namespace uniquanf::cli

#endif  // UNIQUANF_CLIENT_CLI_YAML_H_
