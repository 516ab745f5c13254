#include "common/rpc/call_token.h"

#include <algorithm>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/read_file.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr size_t kMaxTokenFileBytes = 16 << 10;

absl::StatusOr<std::string> ReadToken(const std::string& path) {
  const auto bad = [&](absl::string_view why) {
    return InvalidInput("INVALID_TOKEN_FILE", absl::StrCat("the token file \"", path, "\" ", why));
  };
  const absl::StatusOr<std::string> text = ReadSmallFile(path, kMaxTokenFileBytes);
  if (!text.ok()) return bad(absl::StrCat("cannot be read: ", text.status().message()));
  const absl::string_view token = absl::StripAsciiWhitespace(*text);
  if (token.empty()) return bad("is empty");
  // What a header can hold (RFC 6750, b64token), so that gRPC does not abort on it.
  const bool sound = std::all_of(token.begin(), token.end(), [](char c) {
    return absl::ascii_isalnum(c) || absl::StrContains("-._~+/=", c);
  });
  if (!sound) return bad("holds no token: one line of letters, digits and -._~+/= is expected");
  return std::string(token);
}

bool StaysOnThisMachine(absl::string_view server) {
  if (absl::StartsWith(server, "unix:")) return true;
  absl::ConsumePrefix(&server, "dns:///");
  const absl::string_view host = server.substr(0, server.rfind(':'));
  return host == "localhost" || host == "[::1]" || absl::StartsWith(host, "127.");
}

}  // namespace

absl::Status AddToken(const std::string& token_file, grpc::ClientContext* context) {
  if (token_file.empty()) return absl::OkStatus();
  UQ_ASSIGN_OR_RETURN(const std::string token, ReadToken(token_file));
  context->AddMetadata("authorization", absl::StrCat("Bearer ", token));
  return absl::OkStatus();
}

absl::Status CheckToken(const std::string& token_file, absl::string_view target,
                        const ClientTlsOptions& tls) {
  if (token_file.empty()) return absl::OkStatus();
  const std::vector<absl::string_view> servers = absl::StrSplit(target, ',');
  const bool local = std::all_of(servers.begin(), servers.end(), StaysOnThisMachine);
  if (!local && !tls.enabled && tls.ca_file.empty()) {
    return InvalidInput("INSECURE_TOKEN",
                        absl::StrCat("the token is not sent to ", target,
                                     " without TLS, where everybody on the way could take it; use "
                                     "--tls or --tls-ca"));
  }
  return ReadToken(token_file).status();
}

}  // namespace uniquanf
