// Small files of this machine: settings, keys, credentials. What may be large or remote is an
// object (common/object_store).
//
// Thread safety: free function. Errors: kNotFound (FILE_NOT_READABLE) says what the system says;
// kOutOfRange (FILE_TOO_LARGE). Neither quotes the contents nor names the path.
#ifndef UNIQUANF_COMMON_BASE_READ_FILE_H_
#define UNIQUANF_COMMON_BASE_READ_FILE_H_

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"

namespace uniquanf {

inline constexpr size_t kMaxSmallFileBytes = 16 << 20;

// The whole file, which must hold at most `max_bytes`. Pipes (/dev/stdin) are read to their end.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path,
                                          size_t max_bytes = kMaxSmallFileBytes);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_READ_FILE_H_
