// Keeps credentials out of what people read: logs, errors, audit.
// Thread safety: free function.
#ifndef UNIQUANF_COMMON_BASE_REDACT_H_
#define UNIQUANF_COMMON_BASE_REDACT_H_

#include <string>

#include "absl/strings/string_view.h"

namespace uniquanf {

// `text` with credentials within URIs (user information, queries) replaced by "***".
std::string RedactCredentials(absl::string_view text);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_REDACT_H_
