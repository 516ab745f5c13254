// Sizes for people. Thread safety: free functions.
#ifndef UNIQUANF_COMMON_BASE_FORMAT_BYTES_H_
#define UNIQUANF_COMMON_BASE_FORMAT_BYTES_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace uniquanf {

// "512 B", "1.50 KiB", "12.0 MiB": binary units, three digits. Negative numbers are 0.
std::string FormatBytes(int64_t bytes);

// "4200000000", "4.2GB", "500 MiB": decimal and binary units up to TB, whole bytes, rounded down.
// Nothing for what is no such text, is negative, or does not fit.
std::optional<int64_t> ParseBytes(absl::string_view text);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_FORMAT_BYTES_H_
