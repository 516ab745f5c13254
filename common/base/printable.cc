#include "common/base/printable.h"

#include <cstdint>

#include "absl/strings/str_format.h"
#include "common/base/utf8.h"

namespace uniquanf {
namespace {

// Unicode's control characters but for C0, and its format characters that change what is around
// them or hide (general categories Cc, Zl, Zp and most of Cf). Joiners stay: scripts need them.
bool IsUnsafe(uint32_t c) {
  return (c >= 0x7F && c <= 0x9F) || c == 0xAD || c == 0x61C || c == 0x180E || c == 0x200B ||
         c == 0x200E || c == 0x200F || (c >= 0x2028 && c <= 0x202E) ||
         (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF || (c >= 0xFFF9 && c <= 0xFFFB) ||
         (c >= 0xE0000 && c <= 0xE007F);
}

}  // namespace

std::string PrintableText(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    uint32_t c;
    size_t num_bytes;
    const bool valid = TakeCodePoint(text, &c, &num_bytes);
    if (!valid || c < 0x20 || c == 0x7F) {
      absl::StrAppendFormat(&out, "\\x%02x", c);
    } else if (IsUnsafe(c)) {
      if (c > 0xFFFF) {
        absl::StrAppendFormat(&out, "\\U%08x", c);
      } else {
        absl::StrAppendFormat(&out, "\\u%04x", c);
      }
    } else {
      out.append(text.data(), num_bytes);
    }
    text.remove_prefix(num_bytes);
  }
  return out;
}

std::string PrintableJson(absl::string_view json) {
  std::string out;
  out.reserve(json.size());
  while (!json.empty()) {
    uint32_t c;
    size_t num_bytes;
    const bool valid = TakeCodePoint(json, &c, &num_bytes);
    if (!valid) {
      out.append("\\ufffd");
    } else if (!IsUnsafe(c)) {
      out.append(json.data(), num_bytes);
    } else if (c > 0xFFFF) {  // a pair of surrogates (RFC 8259, section 7)
      absl::StrAppendFormat(&out, "\\u%04x\\u%04x", 0xD800 + ((c - 0x10000) >> 10),
                            0xDC00 + ((c - 0x10000) & 0x3FF));
    } else {
      absl::StrAppendFormat(&out, "\\u%04x", c);
    }
    json.remove_prefix(num_bytes);
  }
  return out;
}

}  // namespace uniquanf
