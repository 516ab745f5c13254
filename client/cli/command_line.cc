#include "client/cli/command_line.h"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/cli/output.h"
#include "common/base/environment.h"
#include "common/base/status.h"

namespace uniquanf::cli {
int ExitCodeFor(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kOk;
    case absl::StatusCode::kNotFound:
      return kNotFound;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return kUnreachable;
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
      return kLocalFailure;
    default:
      return kRefused;
  }
}

int ExitCodeFor(JobState state) {
  if (state == JobState::kFailed) return kJobFailed;
  if (state == JobState::kCancelled) return kJobCancelled;
  return kOk;
}

CommandLine::CommandLine(absl::string_view usage, absl::string_view summary)
    : usage_(usage), flags_(usage, summary) {
  options_.server = EnvironmentVariable("UNIQUANF_SERVER", options_.server);
  options_.tls_ca_file = EnvironmentVariable("UNIQUANF_TLS_CA", "");
  options_.tls_certificate_file = EnvironmentVariable("UNIQUANF_TLS_CERT", "");
  options_.tls_key_file = EnvironmentVariable("UNIQUANF_TLS_KEY", "");
  options_.tls_server_name = EnvironmentVariable("UNIQUANF_TLS_SERVER_NAME", "");
  options_.token_file = EnvironmentVariable("UNIQUANF_TOKEN_FILE", "");
  options_.traceparent = EnvironmentVariable("TRACEPARENT", "");
}

bool IsGlobalFlagWithValue(absl::string_view name) {
  return name == "server" || name == "timeout" || name == "tls-ca" || name == "tls-cert" ||
         name == "tls-key" || name == "tls-server-name" || name == "token-file";
}

std::optional<int> CommandLine::Parse(const Arguments& arguments) {
  flags_.Section("Global flags");
  flags_.String("server", "HOST:PORT", &options_.server,
                "the server, or several joined by commas (one is active); environment variable "
                "UNIQUANF_SERVER");
  flags_.Bool("json", &json_, "print JSON for programs (client/cli/README.md)");
  flags_.Duration("timeout", &timeout_, absl::Milliseconds(1),
                  "deadline of each call, retries included; for a watch, how long a server that "
                  "went away is tried again (there 5m unless given)");
  flags_.Bool("tls", &options_.tls, "use TLS with the system's certificate authorities");
  flags_.String("tls-ca", "FILE", &options_.tls_ca_file,
                "use TLS with this PEM certificate authority; UNIQUANF_TLS_CA");
  flags_.String("tls-cert", "FILE", &options_.tls_certificate_file,
                "client certificate (PEM); UNIQUANF_TLS_CERT");
  flags_.String("tls-key", "FILE", &options_.tls_key_file,
                "key of the client certificate (PEM); UNIQUANF_TLS_KEY");
  flags_.String("tls-server-name", "NAME", &options_.tls_server_name,
                "name expected in the server's certificate; UNIQUANF_TLS_SERVER_NAME");
  flags_.String(
      "token-file", "FILE", &options_.token_file,
      "holds the token that says who you are, for a server that asks; read again for each "
      "call; UNIQUANF_TOKEN_FILE");
  const absl::Status parsed = flags_.Parse(arguments);
  if (!parsed.ok()) return FailUsage(parsed);
  if (flags_.help_requested()) {
    std::fputs(flags_.Help().c_str(), stdout);
    return kOk;
  }
  options_.call_timeout = timeout_;
  if (flags_.WasSet("timeout")) options_.retry.watch_patience = timeout_;
  options_.on_warning = [](const std::string& text) {
    std::fprintf(stderr, "uniquanf: warning: %s\n", Printable(text).c_str());
  };
  return std::nullopt;
}

absl::StatusOr<Client*> CommandLine::Connect() {
  if (client_ == nullptr) {
    UQ_ASSIGN_OR_RETURN(client_, Client::Connect(options_));
  }
  return client_.get();
}

void CommandLine::PrintError(const absl::Status& status) const {
  const std::string reason = ErrorReason(status);
  std::fprintf(stderr, "uniquanf: %s%s%s%s\n", Printable(status.message()).c_str(),
               reason.empty() ? "" : " [", Printable(reason).c_str(), reason.empty() ? "" : "]");
  if (reason == "SERVER_UNREACHABLE") {
    std::fprintf(stderr,
                 "Is uniquanf-server running there? Name it with --server HOST:PORT or the "
                 "environment variable UNIQUANF_SERVER.\n");
  }
  if (json_) {
    nlohmann::ordered_json error;
    error["error"]["code"] = absl::StatusCodeToString(status.code());
    error["error"]["reason"] = reason;
    error["error"]["message"] = std::string(status.message());
    PrintJson(error);
  }
}

int CommandLine::Fail(const absl::Status& status) const {
  PrintError(status);
  return ExitCodeFor(status);
}

int CommandLine::FailUsage(const absl::Status& status) const {
  PrintError(status);
  const std::vector<std::string> words = absl::StrSplit(usage_, ' ');
  std::fprintf(stderr, "See: uniquanf help %s\n", words.size() > 1 ? words[1].c_str() : "");
  return kUsage;
}

}  // namespace uniquanf::cli
