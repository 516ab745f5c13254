#include "server/http/percent_encoding.h"

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "common/base/utf8.h"

namespace uniquanf::server {

std::optional<std::string> PercentDecode(absl::string_view text, PlusIs plus) {
  std::string decoded;
  decoded.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%') {
      const absl::string_view digits = text.substr(i + 1, 2);
      if (digits.size() != 2 || !absl::ascii_isxdigit(digits[0]) ||
          !absl::ascii_isxdigit(digits[1])) {
        return std::nullopt;
      }
      decoded += absl::HexStringToBytes(digits);
      i += 2;
    } else if (text[i] == '+' && plus == PlusIs::kSpace) {
      decoded += ' ';
    } else {
      decoded += text[i];
    }
  }
  if (decoded.find('\0') != std::string::npos || !IsUtf8(decoded)) return std::nullopt;
  return decoded;
}

}  // namespace uniquanf::server
