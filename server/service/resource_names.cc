#include "server/service/resource_names.h"

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/violations.h"

namespace uniquanf::server {
namespace {

constexpr char kReason[] = "INVALID_REQUEST";

bool IsId(absl::string_view text) {
  if (text.empty() || text.size() > 63) return false;
  for (const char c : text) {
    if (!absl::ascii_islower(c) && !absl::ascii_isdigit(c) && c != '-') return false;
  }
  return true;
}

bool IsWorkerId(absl::string_view text) {
  if (text.empty() || text.size() > 128) return false;
  for (const char c : text) {
    if (!absl::ascii_isalnum(c) && c != '.' && c != '_' && c != ':' && c != '-') return false;
  }
  return true;
}

}  // namespace

std::string Quoted(absl::string_view value) {
  if (value.size() <= 100) return absl::StrCat("\"", absl::CHexEscape(value), "\"");
  return absl::StrCat("\"", absl::CHexEscape(value.substr(0, 100)), "...\" (", value.size(),
                      " bytes)");
}

absl::Status CheckJobId(absl::string_view field, absl::string_view id) {
  if (IsId(id)) return absl::OkStatus();
  return InvalidField(
      kReason, field,
      absl::StrCat(field, " ", Quoted(id), " is not 1..63 characters of [a-z0-9-]"));
}

absl::StatusOr<std::string> ParseJobName(absl::string_view field, absl::string_view name) {
  absl::string_view id = name;
  if (absl::ConsumePrefix(&id, "jobs/") && IsId(id)) return std::string(id);
  return InvalidField(kReason, field,
                      absl::StrCat(field, " ", Quoted(name),
                                   " is not of the form jobs/{job}, where {job} is 1..63 "
                                   "characters of [a-z0-9-]"));
}

absl::StatusOr<TaskName> ParseTaskName(absl::string_view field, absl::string_view name) {
  absl::string_view rest = name;
  if (absl::ConsumePrefix(&rest, "jobs/")) {
    const size_t slash = rest.find('/');
    if (slash != absl::string_view::npos) {
      const absl::string_view job = rest.substr(0, slash);
      absl::string_view task = rest.substr(slash + 1);
      if (absl::ConsumePrefix(&task, "tasks/") && IsId(job) && IsId(task)) {
        return TaskName{std::string(job), std::string(task)};
      }
    }
  }
  return InvalidField(
      kReason, field,
      absl::StrCat(field, " ", Quoted(name), " is not of the form jobs/{job}/tasks/{task}"));
}

absl::StatusOr<std::string> ParseWorkerName(absl::string_view field, absl::string_view name) {
  absl::string_view id = name;
  if (absl::ConsumePrefix(&id, "workers/") && IsWorkerId(id)) return std::string(id);
  return InvalidField(kReason, field,
                      absl::StrCat(field, " ", Quoted(name),
                                   " is not of the form workers/{worker}, where {worker} is "
                                   "1..128 characters of [A-Za-z0-9._:-]"));
}

std::string JobName(absl::string_view job) { return absl::StrCat("jobs/", job); }
std::string TaskNameOf(absl::string_view job, absl::string_view task) {
  return absl::StrCat("jobs/", job, "/tasks/", task);
}
std::string WorkerName(absl::string_view worker) { return absl::StrCat("workers/", worker); }

}  // namespace uniquanf::server
