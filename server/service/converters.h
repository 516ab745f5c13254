// The core's values to protocol buffers and back: translation and checks of form, no decisions.
// Thread safety: free functions. Errors: kInvalidArgument (INVALID_REQUEST, INVALID_SPEC) names the
// field, the value and the fix.
#ifndef UNIQUANF_SERVER_SERVICE_CONVERTERS_H_
#define UNIQUANF_SERVER_SERVICE_CONVERTERS_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/core/apply.h"
#include "server/core/events.h"
#include "server/core/state.h"
#include "server/runtime/published_state.h"
#include "uniquanf/v1/admin_service.pb.h"
#include "uniquanf/v1/job_service.pb.h"
#include "uniquanf/v1/worker_service.pb.h"

namespace uniquanf::server {

// Where working objects and artifacts go: URIs without a slash at the end.
struct ObjectLayout {
  std::string root;
  std::string WorkUri(const std::string& job_uid) const { return root + "/work/" + job_uid; }
  std::string ArtifactUri(const std::string& job) const { return root + "/artifacts/" + job; }
  // In the tenant's own place; another job of the name, later, has another one.
  std::string ArtifactUri(const std::string& tenant, const std::string& job,
                          const std::string& job_uid) const;
};

// Whether a job that was read from a store can be shown: its opaque parts are what they should be.
// Errors: kDataLoss (STATE_CORRUPT).
absl::Status CheckStoredJob(const Job& job);
// Of a job or a worker: few, with keys of [a-z0-9_./-]. kInvalidArgument (INVALID_REQUEST).
absl::Status CheckLabels(const google::protobuf::Map<std::string, std::string>& labels);
// How a caller is told names of jobs.
enum class NameForm { kShort, kWithTenant };
std::string NameOf(const Job& job, NameForm form);
// REQUIRES: CheckStoredJob is OK, as for every job of a Runtime that has it as check_job.
void JobToProto(const JobView& view, NameForm form, v1::Job* proto);
// `job`: the job's name as it is to be told.
void TaskToProto(const std::string& job, const Task& task, v1::Task* proto);
void WorkerToProto(const State& state, const Session& session, const Now& now, NameForm form,
                   v1::Worker* proto);
// A name that is drained and that no process has.
void DrainedNameToProto(const std::string& worker, v1::Worker* proto);
void ReplyToProto(const SynchronizeReply& reply, const ObjectLayout& layout, NameForm form,
                  v1::SynchronizeResponse* proto);

// The job as it is to be created, every default of its spec filled in. `fallback_id` names it when
// the request does not. `tenant`: whose it is to be, as the caller's identity says; null: as the
// request says.
absl::StatusOr<CreateJobEvent> CreateJobFromProto(const v1::CreateJobRequest& request,
                                                  const std::string& fallback_id,
                                                  const std::string& uid,
                                                  const ObjectLayout& layout,
                                                  const std::string* tenant = nullptr);
absl::StatusOr<SynchronizeEvent> SynchronizeFromProto(const v1::SynchronizeRequest& request);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_SERVICE_CONVERTERS_H_
