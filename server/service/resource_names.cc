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

// Takes "tenants/{tenant}/" off, if it is there. False: it is there, and no good. Tenants of
// version 0.1 had the characters of a worker's name.
bool ConsumeTenant(absl::string_view* name, std::string* tenant) {
  if (!absl::ConsumePrefix(name, "tenants/")) return true;
  const absl::string_view found = name->substr(0, name->find('/'));
  if (found.size() > 63 || !IsWorkerId(found) || found.size() == name->size()) return false;
  *tenant = std::string(found);
  name->remove_prefix(found.size() + 1);
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

absl::StatusOr<JobRef> ParseJobName(absl::string_view field, absl::string_view name) {
  absl::string_view id = name;
  JobRef job;
  if (ConsumeTenant(&id, &job.tenant) && absl::ConsumePrefix(&id, "jobs/") && IsId(id)) {
    job.id = std::string(id);
    return job;
  }
  return InvalidField(kReason, field,
                      absl::StrCat(field, " ", Quoted(name),
                                   " is not of the form jobs/{job} or tenants/{tenant}/jobs/{job}, "
                                   "where {job} is 1..63 characters of [a-z0-9-]"));
}

absl::StatusOr<TaskName> ParseTaskName(absl::string_view field, absl::string_view name) {
  absl::string_view rest = name;
  TaskName result;
  if (ConsumeTenant(&rest, &result.tenant) && absl::ConsumePrefix(&rest, "jobs/")) {
    const size_t slash = rest.find('/');
    if (slash != absl::string_view::npos) {
      const absl::string_view job = rest.substr(0, slash);
      absl::string_view task = rest.substr(slash + 1);
      if (absl::ConsumePrefix(&task, "tasks/") && IsId(job) && IsId(task)) {
        result.job = std::string(job);
        result.task = std::string(task);
        return result;
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

std::string JobName(absl::string_view job, absl::string_view tenant) {
  if (tenant.empty()) return absl::StrCat("jobs/", job);
  return absl::StrCat("tenants/", tenant, "/jobs/", job);
}
std::string TaskNameOf(absl::string_view job, absl::string_view task) {
  return absl::StrCat(job, "/tasks/", task);
}
std::string WorkerName(absl::string_view worker) { return absl::StrCat("workers/", worker); }

}  // namespace uniquanf::server
