#include "common/base/utf8.h"

namespace uniquanf {

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

bool IsUtf8(absl::string_view text) {
  while (!text.empty()) {
    uint32_t code_point;
    size_t num_bytes;
    if (!TakeCodePoint(text, &code_point, &num_bytes)) return false;
    text.remove_prefix(num_bytes);
  }
  return true;
}

std::string ShortText(absl::string_view text, size_t max_bytes) {
  std::string out;
  while (!text.empty()) {
    uint32_t code_point;
    size_t num_bytes;
    const bool valid = TakeCodePoint(text, &code_point, &num_bytes);
    if (out.size() + num_bytes > max_bytes) {
      out += "...";
      break;
    }
    if (valid) {
      out.append(text.data(), num_bytes);
    } else {
      out.push_back('?');
    }
    text.remove_prefix(num_bytes);
  }
  return out;
}

}  // namespace uniquanf
