#include "worker/text/unicode.h"

#include <utf8proc.h>

#include <array>
#include <cstdlib>
#include <cstring>

namespace uniquanf {
namespace {

// The length of the character that starts at `p`, or minus the number of bytes of an invalid part.
int DecodeChecked(const uint8_t* p, size_t available, char32_t* out) {
  const uint8_t lead = p[0];
  if (lead < 0x80) {
    *out = lead;
    return 1;
  }
  const int length = lead >= 0xC2 && lead <= 0xDF   ? 2
                     : lead >= 0xE0 && lead <= 0xEF ? 3
                     : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                    : 0;
  if (length == 0) return -1;
  uint8_t low = 0x80, high = 0xBF;  // of the second byte
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  char32_t value = lead & (0xFF >> (length + 1));
  for (int i = 1; i < length; ++i) {
    if (static_cast<size_t>(i) >= available || p[i] < low || p[i] > high) return -i;
    low = 0x80;
    high = 0xBF;
    value = value << 6 | (p[i] & 0x3F);
  }
  *out = value;
  return length;
}

const uint8_t* Bytes(absl::string_view text) {
  return reinterpret_cast<const uint8_t*>(text.data());
}

utf8proc_category_t Category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

struct ByteTable {
  std::array<char32_t, 256> character;
  std::array<int16_t, 0x180> byte;
  ByteTable() {
    byte.fill(-1);
    char32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool itself = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      character[b] = itself ? b : next++;
      byte[character[b]] = static_cast<int16_t>(b);
    }
  }
};

const ByteTable& Table() {
  static const ByteTable table;
  return table;
}

}  // namespace

bool IsAscii(absl::string_view text) {
  uint64_t any = 0;
  size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + i, 8);
    any |= word;
  }
  for (; i < text.size(); ++i) any |= static_cast<uint8_t>(text[i]);
  return (any & 0x8080808080808080u) == 0;
}

size_t FindInvalidUtf8(absl::string_view bytes) {
  for (size_t i = 0; i < bytes.size();) {
    if (i + 64 <= bytes.size() && IsAscii(bytes.substr(i, 64))) {
      i += 64;
      continue;
    }
    char32_t c;
    const int length = DecodeChecked(Bytes(bytes) + i, bytes.size() - i, &c);
    if (length <= 0) return i;
    i += length;
  }
  return absl::string_view::npos;
}

std::string ReplaceInvalidUtf8(absl::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (size_t i = 0; i < bytes.size();) {
    char32_t c;
    const int length = DecodeChecked(Bytes(bytes) + i, bytes.size() - i, &c);
    if (length > 0) {
      out.append(bytes.data() + i, length);
      i += length;
    } else {
      out += "\xEF\xBF\xBD";
      i -= length;
    }
  }
  return out;
}

char32_t NextCodePoint(absl::string_view text, size_t* position) {
  const uint8_t lead = text[*position];
  if (lead < 0x80) {
    ++*position;
    return lead;
  }
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  char32_t value = lead & (0xFF >> (length + 1));
  size_t i = *position + 1;
  for (; i < *position + length && i < text.size(); ++i) value = value << 6 | (text[i] & 0x3F);
  *position = i;
  return value;
}

char32_t PreviousCodePoint(absl::string_view text, size_t position) {
  do {
    --position;
  } while (position > 0 && (text[position] & 0xC0) == 0x80);
  return NextCodePoint(text, &position);
}

void AppendCodePoint(char32_t c, std::string* out) {
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out->push_back(static_cast<char>(0xC0 | c >> 6));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else if (c < 0x10000) {
    out->push_back(static_cast<char>(0xE0 | c >> 12));
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else {
    out->push_back(static_cast<char>(0xF0 | c >> 18));
    out->push_back(static_cast<char>(0x80 | (c >> 12 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  }
}

bool IsWhitespace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsNumeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  const utf8proc_category_t category = Category(c);
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
         category == UTF8PROC_CATEGORY_NO;
}

bool IsPunctuation(char32_t c) {
  if (c < 0x80) {
    return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
           (c >= 123 && c <= 126);
  }
  const utf8proc_category_t category = Category(c);
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool IsMark(char32_t c) {
  const utf8proc_category_t category = Category(c);
  return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

bool IsNonspacingMark(char32_t c) { return Category(c) == UTF8PROC_CATEGORY_MN; }

bool IsControl(char32_t c) {
  if (c == '\t' || c == '\n' || c == '\r') return false;
  const utf8proc_category_t category = Category(c);
  return category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF ||
         category == UTF8PROC_CATEGORY_CS || category == UTF8PROC_CATEGORY_CO;
}

bool IsWordCharacter(char32_t c) {
  if (c < 0x80) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  }
  const utf8proc_category_t category = Category(c);
  if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) return true;
  if (category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME) return true;
  if (category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
      category == UTF8PROC_CATEGORY_PC) {
    return true;
  }
  // Join controls, and the symbols that count as alphabetic: letters in circles and squares.
  return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) ||
         (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
         (c >= 0x1F170 && c <= 0x1F189);
}

void AppendLowercase(char32_t c, std::string* out) {
  if (c == 0x130) {  // the one character whose lower case is two
    *out += "i\xCC\x87";
    return;
  }
  AppendCodePoint(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)), out);
}

void AppendUppercase(char32_t c, std::string* out) {
  if (c == 0xDF) {
    *out += "SS";
    return;
  }
  AppendCodePoint(utf8proc_toupper(static_cast<utf8proc_int32_t>(c)), out);
}

std::string ToNormalForm(absl::string_view text, NormalForm form) {
  int options = UTF8PROC_STABLE;
  options |=
      form == NormalForm::kNfc || form == NormalForm::kNfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == NormalForm::kNfkc || form == NormalForm::kNfkd) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(Bytes(text), static_cast<utf8proc_ssize_t>(text.size()), &mapped,
                   static_cast<utf8proc_option_t>(options));
  if (size < 0) {
    std::free(mapped);
    return std::string(text);
  }
  std::string out(reinterpret_cast<const char*>(mapped), size);
  std::free(mapped);
  return out;
}

char32_t CharacterOfByte(uint8_t byte) { return Table().character[byte]; }

int ByteOfCharacter(char32_t c) { return c < Table().byte.size() ? Table().byte[c] : -1; }

void AppendByteLevel(absl::string_view bytes, std::string* out) {
  for (const char byte : bytes) AppendCodePoint(CharacterOfByte(static_cast<uint8_t>(byte)), out);
}

}  // namespace uniquanf
