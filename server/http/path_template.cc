#include "server/http/path_template.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/status.h"
#include "server/http/percent_encoding.h"

namespace uniquanf::server {

absl::StatusOr<PathTemplate> PathTemplate::Parse(absl::string_view text) {
  const auto invalid = [text] {
    return InvalidInput("INVALID_HTTP_RULE", absl::StrCat("no path of an HTTP rule: ", text));
  };
  PathTemplate result;
  absl::string_view rest = text;
  const size_t colon = rest.rfind(':');
  if (colon != absl::string_view::npos && rest.find_first_of("/}", colon) == rest.npos) {
    result.verb_ = std::string(rest.substr(colon + 1));
    rest = rest.substr(0, colon);
    if (result.verb_.empty()) return invalid();
  }
  const auto add = [&result](absl::string_view segments) {
    for (const absl::string_view segment : absl::StrSplit(segments, '/')) {
      const bool after_all = !result.segments_.empty() && result.segments_.back() == "**";
      if (segment.empty() || after_all || segment.find_first_of("{}=") != segment.npos) {
        return false;
      }
      result.segments_.emplace_back(segment);
    }
    return true;
  };
  while (!rest.empty()) {
    if (rest[0] != '/') return invalid();
    rest.remove_prefix(1);
    if (!absl::StartsWith(rest, "{")) {
      const absl::string_view segment = rest.substr(0, rest.find('/'));
      if (!add(segment)) return invalid();
      rest.remove_prefix(segment.size());
      continue;
    }
    const size_t end = rest.find('}');
    if (end == rest.npos) return invalid();
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(rest.substr(1, end - 1), absl::MaxSplits('=', 1));
    Variable variable{std::string(parts.first), result.segments_.size(), 0};
    if (variable.field.empty() || !add(parts.second.empty() ? "*" : parts.second)) return invalid();
    variable.end = result.segments_.size();
    result.variables_.push_back(std::move(variable));
    rest.remove_prefix(end + 1);
  }
  if (result.segments_.empty()) return invalid();
  return result;
}

std::optional<std::map<std::string, std::string>> PathTemplate::Match(
    absl::string_view path) const {
  if (!absl::StartsWith(path, "/")) return std::nullopt;
  path.remove_prefix(1);
  if (!verb_.empty()) {
    // Names may hold a ':' themselves, so only the last one begins a verb.
    if (!absl::EndsWith(path, absl::StrCat(":", verb_))) return std::nullopt;
    path.remove_suffix(verb_.size() + 1);
  }
  const std::vector<absl::string_view> raw = absl::StrSplit(path, '/');
  const bool open = segments_.back() == "**";
  if (raw.size() < segments_.size() || (!open && raw.size() > segments_.size())) {
    return std::nullopt;
  }
  std::vector<std::string> decoded;
  for (size_t i = 0; i < raw.size(); ++i) {
    const std::optional<std::string> segment = PercentDecode(raw[i], PlusIs::kPlus);
    if (!segment.has_value() || segment->empty() || absl::StrContains(*segment, "/")) {
      return std::nullopt;
    }
    const std::string& expected = segments_[std::min(i, segments_.size() - 1)];
    if (expected != "*" && expected != "**" && expected != *segment) return std::nullopt;
    decoded.push_back(*segment);
  }
  std::map<std::string, std::string> values;
  for (const Variable& variable : variables_) {
    const auto end =
        variable.end == segments_.size() ? decoded.end() : decoded.begin() + variable.end;
    values[variable.field] = absl::StrJoin(decoded.begin() + variable.begin, end, "/");
  }
  return values;
}

}  // namespace uniquanf::server
