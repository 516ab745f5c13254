// The three gRPC services: translate, delegate to the runtime, convert the status. Handlers never
// block; what they need from the state comes from its published part or through the writer's queue.
//
// Thread safety: thread-safe. Lifetime: borrow everything in ServiceContext.
#ifndef UNIQUANF_SERVER_SERVICE_SERVICES_H_
#define UNIQUANF_SERVER_SERVICE_SERVICES_H_

#include <memory>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "server/runtime/outcome_proof.h"
#include "server/runtime/runtime.h"
#include "server/runtime/stored_results.h"
#include "server/service/call.h"
#include "server/service/converters.h"
#include "server/service/preflight.h"
#include "server/service/resource_names.h"
#include "server/service/watch_updates.h"
#include "uniquanf/v1/admin_service.grpc.pb.h"
#include "uniquanf/v1/job_service.grpc.pb.h"
#include "uniquanf/v1/worker_service.grpc.pb.h"

namespace uniquanf::server {

// What is served over HTTP as well; WorkerService is between programs of this project alone.
std::vector<const google::protobuf::ServiceDescriptor*> HttpDescriptors();

struct ServiceContext {
  Door door;
  Runtime* runtime = nullptr;
  IdGenerator* ids = nullptr;
  const Clock* clock = nullptr;
  ObjectLayout layout;
  // Where only the server itself and its workers read and write.
  std::vector<std::string> reserved_uris;
  std::string state_backend;
  int max_http_streams = 0;  // 0: there is no HTTP address
  absl::Time start_time;
  std::string
      credentials_dir;  // of tenants (DataAccess), for what the server itself reads of theirs
  const StoredResults* stored_results = nullptr;  // null: RetryJob does not look for results
  const OutcomeProof* outcome_proof = nullptr;    // null: workers are believed
  Preflight* preflight = nullptr;  // null: CreateJob does not look at what a job names
};

// The only way to an Admission in these services.
inline Admission Admit(const ServiceContext& context, grpc::CallbackServerContext* rpc,
                       const Method& method, const std::string& resource) {
  return Admission::Admit(context.door, *rpc, method, resource);
}
// Who may see several tenants' jobs is told their tenants; where nobody is asked who he is, names
// are everybody's.
NameForm NameFormFor(const Principal& principal);
// The job of this name, as the field of a request says it, that `access` reaches. JOB_NOT_FOUND,
// AMBIGUOUS_NAME.
absl::StatusOr<JobView> FindJob(const PublishedState& published, const JobRef& job,
                                const JobAccess& access);

class JobServiceImpl final : public v1::JobService::CallbackService {
 public:
  explicit JobServiceImpl(const ServiceContext* context)
      : context_(*context), watch_updates_(&context->runtime->published()) {}

  grpc::ServerUnaryReactor* CreateJob(grpc::CallbackServerContext*, const v1::CreateJobRequest*,
                                      v1::Job*) override;
  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext*, const v1::GetJobRequest*,
                                   v1::Job*) override;
  grpc::ServerUnaryReactor* ListJobs(grpc::CallbackServerContext*, const v1::ListJobsRequest*,
                                     v1::ListJobsResponse*) override;
  grpc::ServerWriteReactor<v1::WatchJobResponse>* WatchJob(grpc::CallbackServerContext*,
                                                           const v1::WatchJobRequest*) override;
  grpc::ServerUnaryReactor* CancelJob(grpc::CallbackServerContext*, const v1::CancelJobRequest*,
                                      v1::Job*) override;
  grpc::ServerUnaryReactor* RetryJob(grpc::CallbackServerContext*, const v1::RetryJobRequest*,
                                     v1::Job*) override;
  grpc::ServerUnaryReactor* PauseJob(grpc::CallbackServerContext*, const v1::PauseJobRequest*,
                                     v1::Job*) override;
  grpc::ServerUnaryReactor* ResumeJob(grpc::CallbackServerContext*, const v1::ResumeJobRequest*,
                                      v1::Job*) override;
  grpc::ServerUnaryReactor* DeleteJob(grpc::CallbackServerContext*, const v1::DeleteJobRequest*,
                                      google::protobuf::Empty*) override;
  grpc::ServerUnaryReactor* GetTask(grpc::CallbackServerContext*, const v1::GetTaskRequest*,
                                    v1::Task*) override;
  grpc::ServerUnaryReactor* ListTasks(grpc::CallbackServerContext*, const v1::ListTasksRequest*,
                                      v1::ListTasksResponse*) override;
  grpc::ServerUnaryReactor* GetJobMetrics(grpc::CallbackServerContext*,
                                          const v1::GetJobMetricsRequest*,
                                          v1::JobMetrics*) override;
  grpc::ServerUnaryReactor* EstimateJob(grpc::CallbackServerContext*, const v1::EstimateJobRequest*,
                                        v1::JobEstimate*) override;
  grpc::ServerWriteReactor<v1::WatchJobsResponse>* WatchJobs(grpc::CallbackServerContext*,
                                                             const v1::WatchJobsRequest*) override;

 private:
  absl::StatusOr<CreateJobEvent> NewJob(const v1::CreateJobRequest& request,
                                        const Principal& principal);
  // Queues the job, or only says that it could be, and ends the call.
  void Create(UnaryCall* call, CreateJobEvent event, NameForm form,
              std::vector<std::string> not_checked, v1::Job* response);
  // Looks at what the job names first.
  void CheckAndCreate(UnaryCall* call, CreateJobEvent event, NameForm form, v1::Job* response);
  template <typename Event>
  grpc::ServerUnaryReactor* ChangeJob(Admission admission, const std::string& name,
                                      v1::Job* response);

  const ServiceContext& context_;
  WatchUpdates watch_updates_;
};

class WorkerServiceImpl final : public v1::WorkerService::CallbackService {
 public:
  explicit WorkerServiceImpl(const ServiceContext* context) : context_(*context) {}

  grpc::ServerUnaryReactor* Synchronize(grpc::CallbackServerContext*, const v1::SynchronizeRequest*,
                                        v1::SynchronizeResponse*) override;

 private:
  void RecordLeases(const SynchronizeReply& reply, const std::string& identity) const;
  void Believe(UnaryCall* call, SynchronizeEvent event, absl::Duration max_wait,
               v1::SynchronizeResponse* response);

  const ServiceContext& context_;
};

class AdminServiceImpl final : public v1::AdminService::CallbackService {
 public:
  explicit AdminServiceImpl(const ServiceContext* context) : context_(*context) {}

  grpc::ServerUnaryReactor* ListWorkers(grpc::CallbackServerContext*, const v1::ListWorkersRequest*,
                                        v1::ListWorkersResponse*) override;
  grpc::ServerUnaryReactor* DrainWorker(grpc::CallbackServerContext*, const v1::DrainWorkerRequest*,
                                        v1::Worker*) override;
  grpc::ServerUnaryReactor* UndrainWorker(grpc::CallbackServerContext*,
                                          const v1::UndrainWorkerRequest*, v1::Worker*) override;
  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext*,
                                          const v1::GetServerInfoRequest*,
                                          v1::ServerInfo*) override;
  grpc::ServerUnaryReactor* ConfirmWallClock(grpc::CallbackServerContext*,
                                             const v1::ConfirmWallClockRequest*,
                                             v1::ServerInfo*) override;

 private:
  grpc::ServerUnaryReactor* SetDrain(Admission admission, const std::string& name, bool drain,
                                     v1::Worker* response);

  const ServiceContext& context_;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_SERVICE_SERVICES_H_
