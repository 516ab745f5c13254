#include "common/base/printable.h"

#include <cstdint>

#include "absl/strings/str_format.h"

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

// Takes one code point from the front of `text`; false, and one byte, where there is none
// (RFC 3629: no overlong forms, no surrogates, at most U+10FFFF).
bool TakeCodePoint(absl::string_view text, uint32_t* code_point, size_t* num_bytes) {
  const auto byte = [&text](size_t i) { return static_cast<unsigned char>(text[i]); };
  *num_bytes = 1;
  *code_point = byte(0);
  if (byte(0) < 0x80) return true;
  const size_t length = byte(0) >= 0xF0 ? 4 : byte(0) >= 0xE0 ? 3 : 2;
  static constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  if (byte(0) < 0xC2 || byte(0) > 0xF4 || text.size() < length) return false;
  uint32_t value = byte(0) & (0x7F >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return false;
    value = value << 6 | (byte(i) & 0x3F);
  }
  if (value < kLeast[length] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) {
    return false;
  }
  *code_point = value;
  *num_bytes = length;
  return true;
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
