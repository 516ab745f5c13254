// Texts of other people (labels, names, messages of workers, what a model's files say) as they may
// stand on a terminal or in a log: nothing in them can move the cursor, change colours, begin a
// line of its own or turn the order of what follows.
//
// Thread safety: free functions, no state.
#ifndef UNIQUANF_COMMON_BASE_PRINTABLE_H_
#define UNIQUANF_COMMON_BASE_PRINTABLE_H_

#include <string>

#include "absl/strings/string_view.h"

namespace uniquanf {

// `text` with control characters (C0 with line feed and tab, DEL, C1), what changes the direction
// of writing, line separators and other invisible format characters as \xNN or \uNNNN, and bytes
// that are not UTF-8 as \xNN. Everything else stays, also other alphabets. Never shorter than
// `text`.
std::string PrintableText(absl::string_view text);

// The same for JSON that is written already: such characters, which stand raw in its strings, as
// JSON escapes, so that it means what it meant. REQUIRES: valid UTF-8. Line feeds stay.
std::string PrintableJson(absl::string_view json);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_PRINTABLE_H_
