#include "server/access/data_uri.h"

#include <algorithm>
#include <iterator>
#include <map>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace uniquanf::server {

std::vector<DataGrant> GrantsOf(const DataRules& rules,
                                const std::array<std::vector<std::string>, kNumDataPurposes>& data,
                                const std::string& credentials) {
  std::vector<DataGrant> grants = {
      {rules.own, {std::begin(kDataPurposes), std::end(kDataPurposes)}, ""}};
  std::map<std::string, size_t> grant_of;  // index, by prefix
  for (const DataPurpose purpose : kDataPurposes) {
    for (const std::string& prefix : data[static_cast<size_t>(purpose)]) {
      const auto [it, added] = grant_of.emplace(prefix, grants.size());
      if (added) {
        grants.push_back({prefix, {}, absl::StartsWith(prefix, "file://") ? "" : credentials});
      }
      grants[it->second].purposes.push_back(purpose);
    }
  }
  return grants;
}

absl::Status CheckDataAllowed(const DataRules& rules, const std::vector<std::string>& prefixes,
                              DataPurpose purpose, const std::string& tenant,
                              const std::string& member, const std::string& uri) {
  const std::string field =
      absl::StrCat("spec.", member, " \"", absl::CHexEscape(uri.substr(0, 200)), "\"");
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
