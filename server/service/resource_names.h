// Resource names (AIP-122): "jobs/{job}", "jobs/{job}/tasks/{task}", "workers/{worker}"; and, since
// {job} is a tenant's own, "tenants/{tenant}/jobs/{job}" and so on, which everybody may say and who
// sees several tenants' jobs is told.
// Thread safety: free functions. Errors: kInvalidArgument (INVALID_REQUEST) names the field, the
// value and the form that is expected.
#ifndef UNIQUANF_SERVER_SERVICE_RESOURCE_NAMES_H_
#define UNIQUANF_SERVER_SERVICE_RESOURCE_NAMES_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace uniquanf::server {

// `tenant` is empty where the name does not say it.
struct JobRef {
  std::string tenant;
  std::string id;
};
struct TaskName {
  std::string tenant;
  std::string job;
  std::string task;
};

// {job}: 1..63 characters of [a-z0-9-].
absl::Status CheckJobId(absl::string_view field, absl::string_view id);
absl::StatusOr<JobRef> ParseJobName(absl::string_view field, absl::string_view name);
absl::StatusOr<TaskName> ParseTaskName(absl::string_view field, absl::string_view name);
// {worker}: 1..128 characters of [A-Za-z0-9._:-].
absl::StatusOr<std::string> ParseWorkerName(absl::string_view field, absl::string_view name);

std::string JobName(absl::string_view job, absl::string_view tenant = "");
// `job`: the job's whole name.
std::string TaskNameOf(absl::string_view job, absl::string_view task);
std::string WorkerName(absl::string_view worker);

// A value as it may stand in an error message: printable, at most 100 characters.
std::string Quoted(absl::string_view value);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_SERVICE_RESOURCE_NAMES_H_
