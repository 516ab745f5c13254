// Decompression of whole files.
#ifndef UNIQUANF_WORKER_TEXT_UNPACK_H_
#define UNIQUANF_WORKER_TEXT_UNPACK_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace uniquanf {

bool IsGzip(absl::string_view bytes);
bool IsZstd(absl::string_view bytes);

// What gzip members or zstd frames hold; `bytes` itself where it is neither. Errors:
// kInvalidArgument (INVALID_TEXT_FILE where it is damaged or cut off, TEXT_FILE_TOO_LARGE beyond
// `max_bytes`), naming `name`.
absl::StatusOr<std::string> Unpack(absl::string_view name, std::string bytes, uint64_t max_bytes);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TEXT_UNPACK_H_
