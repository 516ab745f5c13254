// Code points of UTF-8 text and the character classes that tokenizers use. Classes follow the Rust
// standard library and regex crate, which define what a tokenizer.json means; data of Unicode 14.
//
// Thread safety: free functions, no state. Texts are valid UTF-8 unless said otherwise.
#ifndef UNIQUANF_WORKER_TEXT_UNICODE_H_
#define UNIQUANF_WORKER_TEXT_UNICODE_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace uniquanf {

// Of any bytes: the position of the first byte that does not belong to valid UTF-8 (no surrogates,
// no overlong forms), or npos.
size_t FindInvalidUtf8(absl::string_view bytes);
// Of any bytes: invalid ones replaced by U+FFFD, one for each maximal part of a character.
std::string ReplaceInvalidUtf8(absl::string_view bytes);

// The code point at `*position`, which moves behind it. REQUIRES: *position < text.size().
char32_t NextCodePoint(absl::string_view text, size_t* position);
// The code point that ends at `position` > 0.
char32_t PreviousCodePoint(absl::string_view text, size_t position);
void AppendCodePoint(char32_t code_point, std::string* out);
bool IsAscii(absl::string_view text);

bool IsWhitespace(char32_t c);   // White_Space
bool IsNumeric(char32_t c);      // Nd, Nl, No
bool IsPunctuation(char32_t c);  // ASCII punctuation and P*
bool IsWordCharacter(char32_t c);
bool IsMark(char32_t c);            // M*
bool IsNonspacingMark(char32_t c);  // Mn
bool IsControl(char32_t c);         // Cc, Cf, Cs, Co, but tab and line ends
void AppendLowercase(char32_t c, std::string* out);
void AppendUppercase(char32_t c, std::string* out);  // one character but for "ß"

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
std::string ToNormalForm(absl::string_view text, NormalForm form);

// The printable characters that byte-level tokenizers write for bytes.
char32_t CharacterOfByte(uint8_t byte);
// The byte of such a character, or -1.
int ByteOfCharacter(char32_t c);
// Appends every byte's character.
void AppendByteLevel(absl::string_view bytes, std::string* out);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TEXT_UNICODE_H_
