#include "client/cli/command_line.h"

#include <cstdio>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/cli/context.h"
#include "client/cli/output.h"
#include "common/base/environment.h"
#include "common/base/status.h"
#include "common/base/violations.h"

namespace uniquanf::cli {
namespace {

// A key pressed in a shell must not wait long for a server that is away.
constexpr absl::Duration kCompletionTimeout = absl::Milliseconds(700);
constexpr int kMaxCompletions = 200;

}  // namespace

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
  options_.traceparent = EnvironmentVariable("TRACEPARENT", "");
}

bool IsGlobalFlagWithValue(absl::string_view argument) {
  static const CommandDescription* const kGlobal = [] {
    // Those that every command has: of one that declares none of its own.
    CommandLine command_line("uniquanf", "");
    (void)command_line.Parse({"__none"});
    return new CommandDescription(command_line.flags().Describe());
  }();
  for (const FlagDescription& flag : kGlobal->flags) {
    if (flag.is_bool) continue;
    if (argument == absl::StrCat("--", flag.name)) return true;
    if (flag.letter != 0 && argument == absl::StrCat("-", std::string(1, flag.letter))) return true;
  }
  return false;
}

std::optional<int> CommandLine::Parse(const Arguments& arguments) {
  flags_.GlobalSection("Global flags",
                       "Output (-o), server, TLS and timeouts: uniquanf help flags.");
  std::string context_name;
  flags_.Choice(
      "format", {"table", "wide", "json", "yaml", "name"}, "table",
      "form of the output; json and yaml are for programs (one schema), name is the names "
      "alone",
      [this](absl::string_view text) {
        format_ = text == "wide"   ? OutputFormat::kWide
                  : text == "json" ? OutputFormat::kJson
                  : text == "yaml" ? OutputFormat::kYaml
                  : text == "name" ? OutputFormat::kName
                                   : OutputFormat::kTable;
      });
  flags_.Letter('o');
  flags_.Bool("json", &json_, "the same as --format=json");
  flags_.String("context", "NAME", &context_name,
                "a context of the configuration file ~/.config/uniquanf/config.yaml: values of "
                "global flags under a name");
  flags_.Environment("UNIQUANF_CONTEXT");
  flags_.String("server", "HOST:PORT", &options_.server,
                "the server, or several joined by commas (one is active)");
  flags_.Environment("UNIQUANF_SERVER");
  flags_.Duration("timeout", &timeout_, absl::Milliseconds(1),
                  "deadline of each call, retries included; for a watch, how long a server that "
                  "went away is tried again (there 5m unless given)");
  flags_.Bool("tls", &options_.tls, "use TLS with the system's certificate authorities");
  flags_.String("tls-ca", "FILE", &options_.tls_ca_file,
                "use TLS with this PEM certificate authority");
  flags_.Environment("UNIQUANF_TLS_CA");
  flags_.String("tls-cert", "FILE", &options_.tls_certificate_file, "client certificate (PEM)");
  flags_.Environment("UNIQUANF_TLS_CERT");
  flags_.String("tls-key", "FILE", &options_.tls_key_file, "key of the client certificate (PEM)");
  flags_.Environment("UNIQUANF_TLS_KEY");
  flags_.String("tls-server-name", "NAME", &options_.tls_server_name,
                "name expected in the server's certificate");
  flags_.Environment("UNIQUANF_TLS_SERVER_NAME");
  flags_.String("token-file", "FILE", &options_.token_file,
                "holds the token that says who you are, for a server that asks; read again for "
                "each call");
  flags_.Environment("UNIQUANF_TOKEN_FILE");
  if (arguments == Arguments{"__none"}) return kOk;
  const absl::Status context = ApplyContext(arguments, &flags_);
  const absl::Status parsed = context.ok() ? flags_.Parse(arguments) : context;
  if (!parsed.ok()) return FailUsage(parsed);
  if (flags_.completion_requested()) return PrintCompletions();
  if (flags_.help_requested()) {
    std::fputs(flags_.Help().c_str(), stdout);
    return kOk;
  }
  if (json_ && format_ == OutputFormat::kTable) format_ = OutputFormat::kJson;
  if (absl::StrContains(options_.server, "://")) {
    return FailUsage(InvalidInput(
        "INVALID_FLAG", absl::StrCat("the server is \"", options_.server,
                                     "\": give HOST:PORT alone, without http:// or grpc://; --tls "
                                     "turns TLS on")));
  }
  options_.call_timeout = timeout_;
  if (flags_.WasSet("timeout")) options_.retry.watch_patience = timeout_;
  options_.on_warning = [](const std::string& text) {
    std::fprintf(stderr, "uniquanf: warning: %s\n", Printable(text).c_str());
  };
  return std::nullopt;
}

int CommandLine::PrintCompletions() {
  for (const absl::string_view line : absl::StrSplit(flags_.Help(), '\n', absl::SkipEmpty())) {
    if (line != ":JOB" && line != ":WORKER") {
      std::printf("%s\n", std::string(line).c_str());
      continue;
    }
    options_.call_timeout = kCompletionTimeout;
    options_.retry.max_attempts = 1;
    const auto client = Connect();
    if (!client.ok()) continue;
    if (line == ":JOB") {
      ListJobsOptions options;
      options.page_size = kMaxCompletions;
      const auto page = (*client)->ListJobs(options);
      if (!page.ok()) continue;
      for (const Job& job : page->jobs) {
        std::printf("%s\t%s\n", ShortJobName(job.name).c_str(),
                    std::string(JobStateName(job.state)).c_str());
      }
    } else if (const auto workers = (*client)->ListWorkers(); workers.ok()) {
      for (const Worker& worker : *workers) {
        std::printf("%s\t%s\n", Printable(absl::StripPrefix(worker.name, "workers/")).c_str(),
                    std::string(WorkerStateName(worker.state)).c_str());
      }
    }
  }
  return kOk;
}

absl::StatusOr<Client*> CommandLine::Connect() {
  if (client_ == nullptr) {
    UQ_ASSIGN_OR_RETURN(client_, Client::Connect(options_));
  }
  return client_.get();
}

bool CommandLine::PrintDocument(const nlohmann::ordered_json& document) const {
  if (format_ == OutputFormat::kJson) {
    PrintJson(document);
  } else if (format_ == OutputFormat::kYaml) {
    PrintYaml(document);
  } else if (format_ == OutputFormat::kName) {
    PrintNames(document);
  }
  return for_programs();
}

bool CommandLine::PrintStreamDocument(const nlohmann::ordered_json& document) const {
  if (format_ == OutputFormat::kJson) {
    PrintJsonLine(document);
  } else if (for_programs()) {
    if (format_ == OutputFormat::kYaml) std::puts("---");
    PrintDocument(document);
    std::fflush(stdout);
  }
  return for_programs();
}

nlohmann::ordered_json ErrorDocument(const absl::Status& status) {
  nlohmann::ordered_json error;
  error["code"] = absl::StatusCodeToString(status.code());
  error["reason"] = ErrorReason(status);
  error["message"] = std::string(status.message());
  error["violations"] = nlohmann::ordered_json::array();
  for (const FieldViolation& violation : FieldViolations(status)) {
    error["violations"].push_back(
        {{"field", violation.field}, {"description", violation.description}});
  }
  return {{"error", error}};
}

void CommandLine::PrintErrorText(const absl::Status& status) const {
  const std::string reason = ErrorReason(status);
  std::fprintf(stderr, "uniquanf: %s%s%s%s\n", Printable(status.message()).c_str(),
               reason.empty() ? "" : " [", Printable(reason).c_str(), reason.empty() ? "" : "]");
  const std::vector<FieldViolation> violations = FieldViolations(status);
  for (size_t i = 1; i < violations.size(); ++i) {  // the message is the first one's
    std::fprintf(stderr, "uniquanf: %s\n", Printable(violations[i].description).c_str());
  }
  if (reason == "SERVER_UNREACHABLE") {
    std::fprintf(stderr,
                 "Is uniquanf-server running there? Name it with --server HOST:PORT or the "
                 "environment variable UNIQUANF_SERVER.\n");
  }
}

void CommandLine::PrintError(const absl::Status& status) const {
  PrintErrorText(status);
  if (format_ != OutputFormat::kName) PrintDocument(ErrorDocument(status));
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
