// Files that people give where others are meant, told by their first bytes. For error messages.
#ifndef UNIQUANF_COMMON_BASE_FILE_KIND_H_
#define UNIQUANF_COMMON_BASE_FILE_KIND_H_

#include <string>

#include "absl/strings/string_view.h"

namespace uniquanf {

// How many first bytes are enough.
inline constexpr size_t kFileKindBytes = 256;

// What a file is when it is something that people commonly take for another, with what to do: "a
// Git LFS pointer, …: run \"git lfs pull\" …", "a gzip file", "a pickled Python file: …"; "" when
// it is none of those. Of a file shorter than kFileKindBytes, give all of it.
std::string DescribeFileKind(absl::string_view first_bytes);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_FILE_KIND_H_
