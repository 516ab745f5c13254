// UTF-8 (RFC 3629: no overlong forms, no surrogates, at most U+10FFFF) of texts that come from
// elsewhere.
//
// Thread safety: free functions, no state.
#ifndef UNIQUANF_COMMON_BASE_UTF8_H_
#define UNIQUANF_COMMON_BASE_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace uniquanf {

// The code point at the front of `text` and its length. False, the first byte and 1 where there is
// none. REQUIRES: `text` is not empty.
bool TakeCodePoint(absl::string_view text, uint32_t* code_point, size_t* num_bytes);

bool IsUtf8(absl::string_view text);

// The longest message that goes from program to program: HTTP/2 peers refuse larger trailers.
inline constexpr size_t kMaxMessageBytes = 2000;

// `text` as a protobuf string takes it: bytes that are no UTF-8 as '?'. What is longer than
// `max_bytes` is cut before the character that passes them, and "..." follows.
std::string ShortText(absl::string_view text, size_t max_bytes = kMaxMessageBytes);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_UTF8_H_
