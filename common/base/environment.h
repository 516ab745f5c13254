// Environment variables. Thread-safe as long as nobody changes them, which nothing here does.
#ifndef UNIQUANF_COMMON_BASE_ENVIRONMENT_H_
#define UNIQUANF_COMMON_BASE_ENVIRONMENT_H_

#include <cstdlib>
#include <string>

#include "absl/strings/string_view.h"

namespace uniquanf {

// The variable's value; `fallback` when it is not set, or empty.
inline std::string EnvironmentVariable(const char* name, absl::string_view fallback = "") {
  const char* value = std::getenv(name);
  return std::string(value != nullptr && *value != '\0' ? absl::string_view(value) : fallback);
}

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_ENVIRONMENT_H_
