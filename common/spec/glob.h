// Name patterns: '*' matches any run of characters (dots too, none too), '?' exactly one,
// everything else itself. Thread safety: free function.
#ifndef UNIQUANF_COMMON_SPEC_GLOB_H_
#define UNIQUANF_COMMON_SPEC_GLOB_H_

#include "absl/strings/string_view.h"

namespace uniquanf {

// Whether all of `text` matches `pattern`; time is at most the product of their lengths.
bool GlobMatches(absl::string_view pattern, absl::string_view text);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_SPEC_GLOB_H_
