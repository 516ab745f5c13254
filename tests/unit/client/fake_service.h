// A gRPC server in this process whose answers a test scripts. A call without a script is
// UNIMPLEMENTED. Thread safety: scripts are set before the first call.
#ifndef UNIQUANF_TESTS_UNIT_CLIENT_FAKE_SERVICE_H_
#define UNIQUANF_TESTS_UNIT_CLIENT_FAKE_SERVICE_H_

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/time/clock.h"
#include "common/rpc/status_proto.h"
#include "uniquanf/v1/admin_service.grpc.pb.h"
#include "uniquanf/v1/job_service.grpc.pb.h"

namespace uniquanf::testing {

using WatchWriter = grpc::ServerWriter<v1::WatchJobResponse>;

template <typename Request, typename Reply>
using Script = std::function<grpc::Status(const Request&, Reply*)>;

class FakeJobService final : public v1::JobService::Service {
 public:
  std::function<grpc::Status(grpc::ServerContext*, const v1::WatchJobRequest&, WatchWriter*)> watch;
  // The metadata "traceparent" of the last GetJob.
  std::string traceparent;

#define UQ_FAKE(Method, RequestType, ReplyType, script)                             \
  Script<v1::RequestType, ReplyType> script;                                        \
  grpc::Status Method(grpc::ServerContext* context, const v1::RequestType* request, \
                      ReplyType* reply) override {                                  \
    const auto found = context->client_metadata().find("traceparent");              \
    if (found != context->client_metadata().end()) {                                \
      traceparent.assign(found->second.data(), found->second.size());               \
    }                                                                               \
    if (script) return script(*request, reply);                                     \
    return grpc::Status(grpc::StatusCode::UNIMPLEMENTED, #Method " has no script"); \
  }
  UQ_FAKE(CreateJob, CreateJobRequest, v1::Job, create)
  UQ_FAKE(GetJob, GetJobRequest, v1::Job, get)
  UQ_FAKE(ListJobs, ListJobsRequest, v1::ListJobsResponse, list)
  UQ_FAKE(CancelJob, CancelJobRequest, v1::Job, cancel)
  UQ_FAKE(RetryJob, RetryJobRequest, v1::Job, retry)
  UQ_FAKE(PauseJob, PauseJobRequest, v1::Job, pause)
  UQ_FAKE(ResumeJob, ResumeJobRequest, v1::Job, resume)
  UQ_FAKE(DeleteJob, DeleteJobRequest, google::protobuf::Empty, remove)
  UQ_FAKE(ListTasks, ListTasksRequest, v1::ListTasksResponse, list_tasks)
#undef UQ_FAKE

  grpc::Status WatchJob(grpc::ServerContext* context, const v1::WatchJobRequest* request,
                        WatchWriter* writer) override {
    if (watch) return watch(context, *request, writer);
    return grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "WatchJob has no script");
  }
};

class FakeAdminService final : public v1::AdminService::Service {
 public:
  Script<v1::ListWorkersRequest, v1::ListWorkersResponse> list_workers;
  Script<v1::DrainWorkerRequest, v1::Worker> drain;
  grpc::Status ListWorkers(grpc::ServerContext*, const v1::ListWorkersRequest* request,
                           v1::ListWorkersResponse* reply) override {
    return list_workers ? list_workers(*request, reply)
                        : grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "no script");
  }
  grpc::Status DrainWorker(grpc::ServerContext*, const v1::DrainWorkerRequest* request,
                           v1::Worker* reply) override {
    return drain ? drain(*request, reply)
                 : grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "no script");
  }
};

class FakeServer {
 public:
  FakeServer() { Start("127.0.0.1:0"); }
  ~FakeServer() { Stop(); }

  void Start(const std::string& address) {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&jobs);
    builder.RegisterService(&admin);
    server_ = builder.BuildAndStart();
    address_ = port > 1 ? "127.0.0.1:" + std::to_string(port) : address;
  }
  // Breaks the calls that run.
  void Stop() {
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
    server_.reset();
  }
  const std::string& address() const { return address_; }

  FakeJobService jobs;
  FakeAdminService admin;

 private:
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

inline v1::Job FakeJob(const std::string& name, int64_t version, v1::Job::State state) {
  v1::Job job;
  job.set_name(name);
  job.set_uid("uid-1");
  job.set_version(version);
  job.set_state(state);
  return job;
}

// Until the client has gone. The synchronous API can only be asked, so this polls.
inline void WaitUntilCancelled(grpc::ServerContext* context) {
  while (!context->IsCancelled()) absl::SleepFor(absl::Milliseconds(1));
}

inline grpc::Status Unavailable() {
  return grpc::Status(grpc::StatusCode::UNAVAILABLE, "scripted outage");
}

}  // namespace uniquanf::testing

#endif  // UNIQUANF_TESTS_UNIT_CLIENT_FAKE_SERVICE_H_
