// Protocol buffers to the client's plain values. Thread safety: free functions, no state.
#ifndef UNIQUANF_CLIENT_SRC_CONVERT_H_
#define UNIQUANF_CLIENT_SRC_CONVERT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/include/uniquanf/client.h"
#include "uniquanf/v1/admin_service.pb.h"
#include "uniquanf/v1/job_service.pb.h"

namespace uniquanf {

// An error when the server's spec is beyond this version (kInvalidArgument).
absl::StatusOr<Job> JobFromProto(const v1::Job& proto);
Task TaskFromProto(const v1::Task& proto);
Worker WorkerFromProto(const v1::Worker& proto);
ServerInfo ServerInfoFromProto(const v1::ServerInfo& proto);
v1::CreateJobRequest CreateJobRequestFrom(const SubmitOptions& options);

// "x" or "jobs/x" as "jobs/x".
std::string JobResourceName(absl::string_view job);
std::string WorkerResourceName(absl::string_view worker);

}  // namespace uniquanf

#endif  // UNIQUANF_CLIENT_SRC_CONVERT_H_
