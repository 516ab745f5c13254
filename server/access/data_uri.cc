#include "server/access/data_uri.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"
#include "common/object_store/store_schemes.h"

namespace uniquanf::server {
namespace {

constexpr absl::string_view kPurposes[] = {"model", "calibration", "evaluation", "output"};

absl::Status Malformed(absl::string_view why) { return InvalidInput("INVALID_SPEC", why); }

}  // namespace

std::string DataPurposeName(DataPurpose purpose) {
  return std::string(kPurposes[static_cast<size_t>(purpose)]);
}

absl::Status CheckDataUri(absl::string_view uri) {
  if (!IsCompleteStoreUri(uri)) return Malformed(absl::StrCat("is not ", StoreUriForms()));
  absl::string_view path = uri.substr(uri.find("://") + 3);
  absl::ConsumeSuffix(&path, "/");
  // file:///a: the path begins with a slash, which no empty segment goes before.
  absl::ConsumePrefix(&path, "/");
  if (path.empty()) return absl::OkStatus();
  for (const absl::string_view segment : absl::StrSplit(path, '/')) {
    if (segment.empty() || segment == "." || segment == "..") {
      return Malformed("has an empty segment, \".\" or \"..\"; say where it leads");
    }
  }
  const bool sound = std::all_of(uri.begin(), uri.end(), [](char c) {
    return c != '%' && c != '\\' && c != '?' && c != '#' && !absl::ascii_iscntrl(c);
  });
  if (!sound) return Malformed("has one of %, \\, ? and #, or a control character");
  return absl::OkStatus();
}

bool LiesBelow(absl::string_view uri, absl::string_view prefix) {
  absl::ConsumeSuffix(&uri, "/");
  absl::ConsumeSuffix(&prefix, "/");
  if (!absl::ConsumePrefix(&uri, prefix)) return false;
  return uri.empty() || uri[0] == '/' || absl::EndsWith(prefix, "/");  // "file:///"
}

absl::Status CheckDataAllowed(const DataRules& rules, const std::vector<std::string>& prefixes,
                              DataPurpose purpose, const std::string& tenant,
                              const std::string& uri) {
  const std::string field = absl::StrCat("spec.", DataPurposeName(purpose), "_uri \"",
                                         absl::CHexEscape(uri.substr(0, 200)), "\"");
  UQ_RETURN_IF_ERROR(Annotate(CheckDataUri(uri), field));
  const auto below = [&](const std::string& prefix) { return LiesBelow(uri, prefix); };
  const bool is_output = purpose == DataPurpose::kOutput;
  if (!is_output && LiesBelow(uri, rules.own)) return absl::OkStatus();
  const bool reserved = std::any_of(rules.reserved.begin(), rules.reserved.end(), below);
  if (!reserved && std::any_of(prefixes.begin(), prefixes.end(), below)) return absl::OkStatus();
  return MakeError(absl::StatusCode::kPermissionDenied, "DATA_NOT_ALLOWED",
                   absl::StrCat(field, ": the server's policy does not let the tenant ", tenant,
                                is_output ? " write there; leave it out for the tenant's own place"
                                          : " read there"));
}

}  // namespace uniquanf::server
