#include "client/include/uniquanf/client.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/src/caller.h"
#include "client/src/client_impl.h"
#include "client/src/convert.h"
#include "common/base/ids.h"
#include "common/rpc/call_token.h"
#include "common/rpc/channel_source.h"
#include "common/rpc/health_check.h"

namespace uniquanf {
namespace {

using JobStub = v1::JobService::Stub;
using AdminStub = v1::AdminService::Stub;

// Pages that never end would be a server's bug; this bounds what it costs the client.
constexpr int kMaxPages = 100000;

template <typename Request>
Request NamedRequest(std::string name) {
  Request request;
  request.set_name(std::move(name));
  return request;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(const ClientOptions& options) {
  if (options.server.empty()) {
    return InvalidInput("INVALID_SERVER", "the server is empty; give HOST:PORT");
  }
  ChannelSourceOptions source;
  ClientTlsOptions& tls = source.channel.tls;
  tls.enabled = options.tls;
  tls.ca_file = options.tls_ca_file;
  tls.certificate_file = options.tls_certificate_file;
  tls.key_file = options.tls_key_file;
  tls.server_name = options.tls_server_name;
  if (options.on_warning != nullptr) {
    source.note = [warn = options.on_warning](NoteLevel level, const std::string& text) {
      if (level == NoteLevel::kWarning) warn(text);
    };
  }
  UQ_RETURN_IF_ERROR(CheckToken(options.token_file, options.server, tls));
  UQ_ASSIGN_OR_RETURN(auto channels, ChannelSource::Make(options.server, source));
  auto impl = std::make_shared<Impl>();
  impl->caller = std::make_shared<Caller>(options, std::move(channels));
  impl->ids = NewRandomIdGenerator();
  return std::unique_ptr<Client>(new Client(std::move(impl)));
}

Client::Client(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() = default;

absl::StatusOr<Job> Client::SubmitJob(const SubmitOptions& options) {
  v1::CreateJobRequest request = CreateJobRequestFrom(options);
  if (request.request_id().empty()) request.set_request_id(impl_->ids->NewId("request"));
  UQ_ASSIGN_OR_RETURN(const v1::Job job, impl_->caller->Call(&JobStub::CreateJob, request));
  return JobFromProto(job);
}

absl::StatusOr<Job> Client::GetJob(absl::string_view job) {
  UQ_ASSIGN_OR_RETURN(
      const v1::Job reply,
      impl_->caller->Call(&JobStub::GetJob, NamedRequest<v1::GetJobRequest>(JobResourceName(job))));
  return JobFromProto(reply);
}

namespace {

absl::StatusOr<JobPage> ListPage(Caller* caller, const ListJobsOptions& options) {
  v1::ListJobsRequest request;
  request.set_page_size(options.page_size);
  request.set_page_token(options.page_token);
  request.set_filter(options.filter);
  request.set_order_by(options.order_by);
  UQ_ASSIGN_OR_RETURN(const v1::ListJobsResponse reply, caller->Call(&JobStub::ListJobs, request));
  JobPage page;
  for (const v1::Job& proto : reply.jobs()) {
    UQ_ASSIGN_OR_RETURN(Job job, JobFromProto(proto));
    page.jobs.push_back(std::move(job));
  }
  page.next_page_token = reply.next_page_token();
  return page;
}

}  // namespace

absl::StatusOr<JobPage> Client::ListJobs(const ListJobsOptions& options) {
  return ListPage(impl_->caller.get(), options);
}

struct JobIterator::Impl {
  std::shared_ptr<Caller> caller;
  ListJobsOptions options;
  JobPage page;
  size_t next = 0;
  int num_pages = 0;
};

JobIterator::JobIterator(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
JobIterator::~JobIterator() = default;
JobIterator::JobIterator(JobIterator&&) noexcept = default;
JobIterator& JobIterator::operator=(JobIterator&&) noexcept = default;

JobIterator Client::IterateJobs(const ListJobsOptions& options) {
  auto impl = std::make_unique<JobIterator::Impl>();
  impl->caller = impl_->caller;
  impl->options = options;
  return JobIterator(std::move(impl));
}

absl::StatusOr<std::optional<Job>> JobIterator::Next() {
  // A page may be empty although more follow (AIP-158).
  while (impl_->next >= impl_->page.jobs.size()) {
    if (impl_->num_pages > 0 && impl_->page.next_page_token.empty()) return std::nullopt;
    if (impl_->num_pages >= kMaxPages) return absl::InternalError("the list of jobs does not end");
    ListJobsOptions options = impl_->options;
    if (impl_->num_pages > 0) options.page_token = impl_->page.next_page_token;
    UQ_ASSIGN_OR_RETURN(impl_->page, ListPage(impl_->caller.get(), options));
    impl_->next = 0;
    ++impl_->num_pages;
  }
  return std::move(impl_->page.jobs[impl_->next++]);
}

absl::StatusOr<Job> Client::CancelJob(absl::string_view job) {
  UQ_ASSIGN_OR_RETURN(const v1::Job reply,
                      impl_->caller->Call(&JobStub::CancelJob, NamedRequest<v1::CancelJobRequest>(
                                                                   JobResourceName(job))));
  return JobFromProto(reply);
}

absl::StatusOr<Job> Client::PauseJob(absl::string_view job) {
  UQ_ASSIGN_OR_RETURN(const v1::Job reply,
                      impl_->caller->Call(&JobStub::PauseJob,
                                          NamedRequest<v1::PauseJobRequest>(JobResourceName(job))));
  return JobFromProto(reply);
}

// A precondition that fails on a repeated call may be the doing of the first one, whose reply got
// lost: then the job is already as it was asked to be.
absl::StatusOr<Job> Client::ResumeJob(absl::string_view job) {
  int num_attempts = 0;
  const auto reply = impl_->caller->Call(
      &JobStub::ResumeJob, NamedRequest<v1::ResumeJobRequest>(JobResourceName(job)), &num_attempts);
  if (reply.ok()) return JobFromProto(*reply);
  if (num_attempts > 1 && ErrorReason(reply.status()) == "JOB_NOT_PAUSED") {
    auto now = GetJob(job);
    if (now.ok() && (now->state == JobState::kQueued || now->state == JobState::kRunning)) {
      return now;
    }
  }
  return reply.status();
}

absl::StatusOr<Job> Client::RetryJob(absl::string_view job) {
  int num_attempts = 0;
  const auto reply = impl_->caller->Call(
      &JobStub::RetryJob, NamedRequest<v1::RetryJobRequest>(JobResourceName(job)), &num_attempts);
  if (reply.ok()) return JobFromProto(*reply);
  if (num_attempts > 1 && ErrorReason(reply.status()) == "JOB_NOT_RETRYABLE") {
    auto now = GetJob(job);
    if (now.ok() && (now->state == JobState::kQueued || now->state == JobState::kRunning)) {
      return now;
    }
  }
  return reply.status();
}

absl::Status Client::DeleteJob(absl::string_view job, bool allow_missing) {
  auto request = NamedRequest<v1::DeleteJobRequest>(JobResourceName(job));
  request.set_allow_missing(allow_missing);
  int num_attempts = 0;
  const auto reply = impl_->caller->Call(&JobStub::DeleteJob, request, &num_attempts);
  if (num_attempts > 1 && reply.status().code() == absl::StatusCode::kNotFound) {
    return absl::OkStatus();
  }
  return reply.status();
}

absl::StatusOr<std::vector<Task>> Client::ListTasks(absl::string_view job) {
  v1::ListTasksRequest request;
  request.set_parent(JobResourceName(job));
  std::vector<Task> tasks;
  for (int page = 0; page < kMaxPages; ++page) {
    UQ_ASSIGN_OR_RETURN(const v1::ListTasksResponse reply,
                        impl_->caller->Call(&JobStub::ListTasks, request));
    for (const v1::Task& task : reply.tasks()) tasks.push_back(TaskFromProto(task));
    if (reply.next_page_token().empty()) return tasks;
    request.set_page_token(reply.next_page_token());
  }
  return absl::InternalError("the list of tasks does not end");
}

absl::StatusOr<std::vector<Worker>> Client::ListWorkers() {
  v1::ListWorkersRequest request;
  std::vector<Worker> workers;
  for (int page = 0; page < kMaxPages; ++page) {
    UQ_ASSIGN_OR_RETURN(const v1::ListWorkersResponse reply,
                        impl_->caller->Call(&AdminStub::ListWorkers, request));
    for (const v1::Worker& worker : reply.workers()) workers.push_back(WorkerFromProto(worker));
    if (reply.next_page_token().empty()) return workers;
    request.set_page_token(reply.next_page_token());
  }
  return absl::InternalError("the list of workers does not end");
}

absl::StatusOr<Worker> Client::DrainWorker(absl::string_view worker) {
  UQ_ASSIGN_OR_RETURN(
      const v1::Worker reply,
      impl_->caller->Call(&AdminStub::DrainWorker,
                          NamedRequest<v1::DrainWorkerRequest>(WorkerResourceName(worker))));
  return WorkerFromProto(reply);
}

absl::StatusOr<Worker> Client::UndrainWorker(absl::string_view worker) {
  UQ_ASSIGN_OR_RETURN(
      const v1::Worker reply,
      impl_->caller->Call(&AdminStub::UndrainWorker,
                          NamedRequest<v1::UndrainWorkerRequest>(WorkerResourceName(worker))));
  return WorkerFromProto(reply);
}

absl::StatusOr<ServerInfo> Client::GetServerInfo() {
  UQ_ASSIGN_OR_RETURN(const v1::ServerInfo reply,
                      impl_->caller->Call(&AdminStub::GetServerInfo, v1::GetServerInfoRequest()));
  return ServerInfoFromProto(reply);
}

absl::Status Client::CheckHealth() {
  Caller& caller = *impl_->caller;
  const absl::Status status =
      uniquanf::CheckHealth(caller.channel(), caller.options().call_timeout);
  if (!absl::IsUnavailable(status)) return status;
  return Annotate(status, absl::StrCat("cannot reach a server at ", caller.options().server));
}

absl::StatusOr<ServerInfo> Client::ConfirmWallClock() {
  UQ_ASSIGN_OR_RETURN(
      const v1::ServerInfo reply,
      impl_->caller->Call(&AdminStub::ConfirmWallClock, v1::ConfirmWallClockRequest()));
  return ServerInfoFromProto(reply);
}

}  // namespace uniquanf
