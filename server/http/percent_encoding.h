// Percent-encoding (RFC 3986) of paths and of queries, where '+' is a space as well.
// Thread safety: free functions. nullopt: a '%' without two hex digits, a NUL, or no UTF-8.
#ifndef UNIQUANF_SERVER_HTTP_PERCENT_ENCODING_H_
#define UNIQUANF_SERVER_HTTP_PERCENT_ENCODING_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace uniquanf::server {

enum class PlusIs { kPlus, kSpace };
std::optional<std::string> PercentDecode(absl::string_view text, PlusIs plus);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_HTTP_PERCENT_ENCODING_H_
