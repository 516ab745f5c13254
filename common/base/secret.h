// Random bytes that nobody guesses, and what is derived from them and compared with them.
//
// Thread safety: free functions, thread-safe.
#ifndef UNIQUANF_COMMON_BASE_SECRET_H_
#define UNIQUANF_COMMON_BASE_SECRET_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace uniquanf {

// From the operating system's random source, through OpenSSL.
std::string RandomBytes(size_t num_bytes);
// The 32 bytes of HMAC-SHA256 (RFC 2104): without the key nothing tells them from random ones.
std::string HmacSha256(absl::string_view key, absl::string_view message);
// Whether both are the same, in a time that depends on their lengths alone.
bool SameSecret(absl::string_view a, absl::string_view b);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_SECRET_H_
