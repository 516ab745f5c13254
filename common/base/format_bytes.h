// Sizes for people.
#ifndef UNIQUANF_COMMON_BASE_FORMAT_BYTES_H_
#define UNIQUANF_COMMON_BASE_FORMAT_BYTES_H_

#include <cstdint>
#include <string>

namespace uniquanf {

// "512 B", "1.50 KiB", "12.0 MiB": binary units, three digits. Negative numbers are 0.
std::string FormatBytes(int64_t bytes);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_FORMAT_BYTES_H_
