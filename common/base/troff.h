// Text of manual pages. Thread safety: free functions, no state.
#ifndef UNIQUANF_COMMON_BASE_TROFF_H_
#define UNIQUANF_COMMON_BASE_TROFF_H_

#include <string>

#include "absl/strings/string_view.h"

namespace uniquanf {

// `text` as it must stand in troff: backslashes, leading dots and quotes, minus signs that can be
// copied.
std::string Troff(absl::string_view text);
// As one argument of a macro.
std::string TroffArgument(absl::string_view text);
// The title line and NAME: `summary`'s first sentence, as apropos(1) lists it.
std::string ManualHead(absl::string_view name, int section, absl::string_view summary);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_TROFF_H_
