#include "common/spec/glob.h"

namespace uniquanf {

bool GlobMatches(absl::string_view pattern, absl::string_view text) {
  // Only the last '*' needs retrying: what an earlier one matched can stay as short as it was.
  size_t p = 0, t = 0;
  size_t star = absl::string_view::npos, retry = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      retry = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (star != absl::string_view::npos) {
      p = star + 1;
      t = ++retry;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace uniquanf
