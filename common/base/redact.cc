#include "common/base/redact.h"

#include <algorithm>

#include "absl/strings/ascii.h"

namespace uniquanf {

std::string RedactCredentials(absl::string_view text) {
  std::string out;
  size_t at = 0;
  while (at < text.size()) {
    const size_t scheme = text.find("://", at);
    if (scheme == absl::string_view::npos) break;
    size_t end = scheme + 3;
    while (end < text.size() && !absl::ascii_isspace(text[end]) && text[end] != '"' &&
           text[end] != '\'') {
      ++end;
    }
    const absl::string_view uri = text.substr(scheme + 3, end - scheme - 3);
    out.append(text.data() + at, scheme + 3 - at);
    const size_t slash = std::min(uri.find('/'), uri.size());
    const size_t user = uri.substr(0, slash).rfind('@');
    size_t begin = 0;
    if (user != absl::string_view::npos) {
      out.append("***@");
      begin = user + 1;
    }
    const size_t query = uri.find('?', begin);
    const absl::string_view kept = uri.substr(
        begin, query == absl::string_view::npos ? absl::string_view::npos : query - begin);
    out.append(kept.data(), kept.size());
    if (query != absl::string_view::npos) out.append("?***");
    at = end;
  }
  const absl::string_view rest = text.substr(at);
  out.append(rest.data(), rest.size());
  return out;
}

}  // namespace uniquanf
