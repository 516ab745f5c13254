// How a program tells whoever started it that it serves: a file that appears whole.
// Thread safety: free function. Errors: kFailedPrecondition (READY_FILE) names the file.
#ifndef UNIQUANF_COMMON_BASE_READY_FILE_H_
#define UNIQUANF_COMMON_BASE_READY_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace uniquanf {

// Writes `line` and a newline; nothing when `path` is empty.
absl::Status WriteReadyFile(const std::string& path, absl::string_view line);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_READY_FILE_H_
