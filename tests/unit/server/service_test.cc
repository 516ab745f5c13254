// Every RPC over an in-process channel: what works, and every error that the protos promise.
#include <google/rpc/error_details.pb.h>
#include <gtest/gtest.h>

#include <chrono>

#include "common/base/clock.h"
#include "common/base/digest.h"
#include "common/base/ids.h"
#include "common/base/version.h"
#include "common/base/violations.h"
#include "common/rpc/status_proto.h"
#include "common/rpc/time_proto.h"
#include "server/service/server_process.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace uniquanf::server {
namespace {

using absl::StatusCode;

class ServiceTest : public ::testing::Test {
 protected:
  ServiceTest() : ids_(NewSeededIdGenerator(1)) {
    ServerProcessOptions options;
    options.listen = "";
    options.object_root = "file://" + dir_.File("objects") + "/";
    options.shutdown_timeout = absl::Seconds(1);
    options.runtime.policy.max_queued_jobs_per_tenant = 40;
    server_ = std::make_unique<ServerProcess>(std::move(options),
                                              NewSqliteStore(dir_.File("state.sqlite")),
                                              &SystemClock(), ids_.get(), nullptr, nullptr);
    const absl::Status status = server_->Start();
    EXPECT_THAT(status, IsOk());
    const auto channel = server_->InProcessChannel();
    jobs_ = v1::JobService::NewStub(channel);
    workers_ = v1::WorkerService::NewStub(channel);
    admin_ = v1::AdminService::NewStub(channel);
  }

  template <typename Request, typename Response>
  using Method = grpc::Status (v1::JobService::Stub::*)(grpc::ClientContext*, const Request&,
                                                        Response*);
  // Calls `method` of the job service.
  template <typename Response, typename Request>
  absl::StatusOr<Response> Do(Method<Request, Response> method, const Request& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    Response response;
    const absl::Status status =
        FromGrpcStatus((jobs_.get()->*method)(&context, request, &response));
    if (!status.ok()) return status;
    return response;
  }
  static v1::CreateJobRequest NewJob(const std::string& id = "") {
    v1::CreateJobRequest request;
    request.set_job_id(id);
    v1::QuantizationSpec* spec = request.mutable_job()->mutable_spec();
    spec->set_model_uri("file:///models/tiny");
    spec->set_calibration_uri("file:///data/calibration.safetensors");
    spec->set_bits(3);
    return request;
  }
  absl::StatusOr<v1::Job> Create(const v1::CreateJobRequest& request) {
    return Do<v1::Job>(&v1::JobService::Stub::CreateJob, request);
  }
  absl::StatusOr<v1::Job> Get(const std::string& name) {
    v1::GetJobRequest request;
    request.set_name(name);
    return Do<v1::Job>(&v1::JobService::Stub::GetJob, request);
  }
  template <typename Request>
  absl::StatusOr<v1::Job> Named(Method<Request, v1::Job> method, const std::string& name) {
    Request request;
    request.set_name(name);
    return Do<v1::Job>(method, request);
  }
  absl::StatusOr<v1::ListJobsResponse> List(const std::string& filter, int page_size = 0,
                                            const std::string& token = "",
                                            const std::string& order_by = "") {
    v1::ListJobsRequest request;
    request.set_filter(filter);
    request.set_page_size(page_size);
    request.set_page_token(token);
    request.set_order_by(order_by);
    return Do<v1::ListJobsResponse>(&v1::JobService::Stub::ListJobs, request);
  }
  v1::SynchronizeRequest Call() {
    v1::SynchronizeRequest request;
    request.set_session_id("session");
    request.set_worker("workers/w");
    request.set_protocol_version(kProtocolVersion);
    request.set_software_version("0.1.0");
    request.set_sequence(++sequence_);
    request.mutable_capabilities()->set_device("cpu");
    request.mutable_capabilities()->set_num_slots(1);
    request.set_num_free_slots(1);
    return request;
  }
  absl::StatusOr<v1::SynchronizeResponse> Synchronize(const v1::SynchronizeRequest& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    v1::SynchronizeResponse response;
    const absl::Status status = FromGrpcStatus(workers_->Synchronize(&context, request, &response));
    if (!status.ok()) return status;
    return response;
  }
  // A worker that does every task at once, until there is none left.
  void RunAll(int num_layers = 2) {
    v1::SynchronizeRequest request = Call();
    while (true) {
      const auto response = Synchronize(request);
      ASSERT_THAT(response, IsOk());
      if (response->assignments().empty()) return;
      request = Call();
      for (const v1::TaskAssignment& a : response->assignments()) {
        EXPECT_EQ(a.work_uri().find("file://"), 0u);
        EXPECT_FALSE(a.spec().output_uri().empty());
        EXPECT_EQ(a.traceparent().size(), 55u);
        v1::LeaseReport* report = request.add_leases();
        report->set_lease_id(a.lease_id());
        report->set_lease_token(a.lease_token());
        report->set_attempt(a.attempt());
        report->set_task(a.task());
        v1::TaskOutcome* outcome = report->mutable_succeeded();
        outcome->set_result_sha256(Sha256Hex(a.task()));
        outcome->set_num_layers(num_layers);
        outcome->set_device("cpu");
        if (a.kind() == v1::Task::FINALIZE) {
          EXPECT_EQ(a.layer_sha256_size(), num_layers);
          outcome->mutable_artifact()->set_uri(a.spec().output_uri());
          outcome->mutable_report()->set_perplexity_after(12.5);
        }
      }
    }
  }

  TempDir dir_;
  std::unique_ptr<IdGenerator> ids_;
  std::unique_ptr<ServerProcess> server_;
  std::unique_ptr<v1::JobService::Stub> jobs_;
  std::unique_ptr<v1::WorkerService::Stub> workers_;
  std::unique_ptr<v1::AdminService::Stub> admin_;
  int64_t sequence_ = 0;
};

TEST_F(ServiceTest, AJobGoesFromCreationToItsReport) {
  const auto job = Create(NewJob("tiny"));
  ASSERT_THAT(job, IsOk());
  EXPECT_EQ(job->name(), "jobs/tiny");
  EXPECT_EQ(job->state(), v1::Job::QUEUED);
  EXPECT_EQ(job->tenant(), "default");
  EXPECT_EQ(job->spec().bits(), 3);
  EXPECT_EQ(job->spec().epochs(), 20);  // a default, shown
  EXPECT_EQ(job->spec().output_uri(), "file://" + dir_.File("objects") + "/artifacts/tiny");
  RunAll();
  const auto done = Get("jobs/tiny");
  ASSERT_THAT(done, IsOk());
  EXPECT_EQ(done->state(), v1::Job::SUCCEEDED);
  EXPECT_EQ(done->artifact().uri(), job->spec().output_uri());
  EXPECT_EQ(done->report().perplexity_after(), 12.5);
  EXPECT_EQ(done->progress().fraction(), 1.0);
  EXPECT_EQ(done->progress().num_layers_succeeded(), 2);
  v1::ListTasksRequest list;
  list.set_parent("jobs/tiny");
  list.set_page_size(3);
  const auto tasks = Do<v1::ListTasksResponse>(&v1::JobService::Stub::ListTasks, list);
  ASSERT_THAT(tasks, IsOk());
  ASSERT_EQ(tasks->tasks_size(), 3);
  EXPECT_EQ(tasks->tasks(1).name(), "jobs/tiny/tasks/layer-0000");
  list.set_page_token(tasks->next_page_token());
  const auto rest = Do<v1::ListTasksResponse>(&v1::JobService::Stub::ListTasks, list);
  ASSERT_EQ(rest->tasks_size(), 1);
  EXPECT_EQ(rest->tasks(0).kind(), v1::Task::FINALIZE);
  EXPECT_EQ(rest->next_page_token(), "");
}

TEST_F(ServiceTest, BadJobsAreRefusedWithTheFieldNamed) {
  struct Case {
    const char* field;
    const char* reason;
    std::function<void(v1::CreateJobRequest*)> spoil;
  };
  const Case cases[] = {
      {"spec", "INVALID_SPEC", [](auto* r) { r->clear_job(); }},
      {"model_uri", "INVALID_SPEC",
       [](auto* r) { r->mutable_job()->mutable_spec()->clear_model_uri(); }},
      {"model_uri", "INVALID_SPEC",
       [](auto* r) { r->mutable_job()->mutable_spec()->set_model_uri("relative/path"); }},
      {"output_uri", "INVALID_SPEC",
       [](auto* r) { r->mutable_job()->mutable_spec()->set_output_uri("http://x"); }},
      {"bits", "INVALID_SPEC", [](auto* r) { r->mutable_job()->mutable_spec()->set_bits(9); }},
      {"job_id", "INVALID_REQUEST", [](auto* r) { r->set_job_id("No Good"); }},
      {"request_id", "INVALID_REQUEST", [](auto* r) { r->set_request_id(std::string(129, 'x')); }},
      {"priority", "INVALID_REQUEST", [](auto* r) { r->mutable_job()->set_priority(101); }},
      {"tenant", "INVALID_REQUEST", [](auto* r) { r->mutable_job()->set_tenant("a b"); }},
      {"device", "INVALID_REQUEST", [](auto* r) { r->mutable_job()->set_device("tpu"); }},
      {"labels", "INVALID_REQUEST",
       [](auto* r) { (*r->mutable_job()->mutable_labels())["Not OK"] = "x"; }},
      {"labels", "INVALID_REQUEST",
       [](auto* r) {
         for (int i = 0; i < 33; ++i)
           (*r->mutable_job()->mutable_labels())["k" + std::to_string(i)];
       }},
      {"time_to_live", "INVALID_REQUEST",
       [](auto* r) { r->mutable_job()->mutable_time_to_live()->set_seconds(-1); }},
  };
  for (const Case& c : cases) {
    v1::CreateJobRequest request = NewJob();
    c.spoil(&request);
    EXPECT_THAT(Create(request),
                FailsWith(StatusCode::kInvalidArgument, c.reason, ::testing::HasSubstr(c.field)));
  }
  EXPECT_EQ(List("")->jobs_size(), 0);
}

// A form of a web page can mark every field at once.
TEST_F(ServiceTest, AllThatIsWrongWithAJobIsSaidAtOnce) {
  v1::CreateJobRequest request = NewJob("Not/An/Id");
  v1::Job* job = request.mutable_job();
  job->mutable_spec()->set_bits(99);
  job->mutable_spec()->set_epochs(-1);
  job->mutable_spec()->set_model_uri("somewhere");
  v1::ModuleOverride* entry = job->mutable_spec()->add_overrides();
  entry->set_pattern("*");
  entry->set_bits(1);
  job->set_priority(1000);
  job->set_device("tpu");
  (*job->mutable_labels())["Bad Key"] = "v";
  const absl::Status status = Create(request).status();
  EXPECT_THAT(status, FailsWith(StatusCode::kInvalidArgument, "INVALID_REQUEST",
                                ::testing::HasSubstr("job_id")));
  std::vector<std::string> fields;
  for (const FieldViolation& violation : FieldViolations(status)) {
    fields.push_back(violation.field);
    EXPECT_FALSE(violation.description.empty());
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(violation.field));
  }
  EXPECT_THAT(fields,
              ::testing::UnorderedElementsAre("job_id", "job.spec.bits", "job.spec.epochs",
                                              "job.spec.model_uri", "job.spec.overrides[0].bits",
                                              "job.priority", "job.device", "job.labels"));
  const auto page = List("nonsense").status();
  ASSERT_EQ(FieldViolations(page).size(), 1u);
  EXPECT_EQ(FieldViolations(page)[0].field, "filter");
  EXPECT_EQ(FieldViolations(Get("x").status())[0].field, "name");
}

TEST_F(ServiceTest, RequestIdMakesCreationIdempotent) {
  v1::CreateJobRequest request = NewJob();
  request.set_request_id("r1");
  const auto first = Create(request);
  ASSERT_THAT(first, IsOk());
  const auto second = Create(request);
  ASSERT_THAT(second, IsOk());
  EXPECT_EQ(second->name(), first->name());
  EXPECT_EQ(second->uid(), first->uid());
  request.mutable_job()->mutable_spec()->set_bits(4);
  EXPECT_THAT(Create(request), FailsWith(StatusCode::kAlreadyExists, "REQUEST_ID_REUSED"));
  EXPECT_EQ(List("")->jobs_size(), 1);
}

TEST_F(ServiceTest, TakenNameIsRefused) {
  ASSERT_THAT(Create(NewJob("a")), IsOk());
  EXPECT_THAT(Create(NewJob("a")), FailsWith(StatusCode::kAlreadyExists, "JOB_EXISTS"));
}

TEST_F(ServiceTest, ValidateOnlyCreatesNothing) {
  v1::CreateJobRequest request = NewJob("a");
  request.set_validate_only(true);
  const auto preview = Create(request);
  ASSERT_THAT(preview, IsOk());
  EXPECT_EQ(preview->name(), "jobs/a");
  EXPECT_EQ(preview->spec().epochs(), 20);
  EXPECT_THAT(Get("jobs/a"), FailsWith(StatusCode::kNotFound, "JOB_NOT_FOUND"));
}

TEST_F(ServiceTest, QuotaIsResourceExhausted) {
  for (int i = 0; i < 40; ++i) ASSERT_THAT(Create(NewJob()), IsOk());
  EXPECT_THAT(Create(NewJob()), FailsWith(StatusCode::kResourceExhausted, "QUOTA_EXCEEDED"));
}

TEST_F(ServiceTest, OversizedRequestIsResourceExhaustedAndHarmless) {
  v1::CreateJobRequest request = NewJob("a");
  request.mutable_job()->mutable_spec()->set_model_uri("file:///" + std::string(2 << 20, 'x'));
  EXPECT_EQ(Create(request).status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(Create(NewJob("a")), IsOk());
}

TEST_F(ServiceTest, UnknownJobIsNotFoundEverywhere) {
  const auto unknown = FailsWith(StatusCode::kNotFound, "JOB_NOT_FOUND");
  const std::string name = "jobs/none";
  EXPECT_THAT(Get(name), unknown);
  EXPECT_THAT(Named(&v1::JobService::Stub::CancelJob, name), unknown);
  EXPECT_THAT(Named(&v1::JobService::Stub::RetryJob, name), unknown);
  EXPECT_THAT(Named(&v1::JobService::Stub::PauseJob, name), unknown);
  EXPECT_THAT(Named(&v1::JobService::Stub::ResumeJob, name), unknown);
  v1::DeleteJobRequest remove;
  remove.set_name(name);
  EXPECT_THAT(Do<google::protobuf::Empty>(&v1::JobService::Stub::DeleteJob, remove), unknown);
  remove.set_allow_missing(true);
  EXPECT_THAT(Do<google::protobuf::Empty>(&v1::JobService::Stub::DeleteJob, remove), IsOk());
  v1::ListTasksRequest list;
  list.set_parent(name);
  EXPECT_THAT(Do<v1::ListTasksResponse>(&v1::JobService::Stub::ListTasks, list), unknown);
  v1::GetTaskRequest task;
  task.set_name("jobs/none/tasks/prepare");
  EXPECT_THAT(Do<v1::Task>(&v1::JobService::Stub::GetTask, task),
              FailsWith(StatusCode::kNotFound, "TASK_NOT_FOUND"));
  grpc::ClientContext context;
  v1::WatchJobRequest watch;
  watch.set_name(name);
  auto stream = jobs_->WatchJob(&context, watch);
  v1::WatchJobResponse message;
  EXPECT_FALSE(stream->Read(&message));
  EXPECT_THAT(FromGrpcStatus(stream->Finish()), unknown);
}

TEST_F(ServiceTest, MalformedNamesAreInvalid) {
  for (const char* name : {"", "jobs", "jobs/", "jobs/A", "job/a", "jobs/a/b", "jobs/a b"}) {
    EXPECT_THAT(Get(name), FailsWith(StatusCode::kInvalidArgument, "INVALID_REQUEST")) << name;
    EXPECT_THAT(Named(&v1::JobService::Stub::CancelJob, name),
                FailsWith(StatusCode::kInvalidArgument, "INVALID_REQUEST"));
  }
  v1::GetTaskRequest task;
  task.set_name("jobs/a/tasks/");
  EXPECT_THAT(Do<v1::Task>(&v1::JobService::Stub::GetTask, task),
              FailsWith(StatusCode::kInvalidArgument, "INVALID_REQUEST"));
}

TEST_F(ServiceTest, StateChangesThatDoNotFitAreRefused) {
  ASSERT_THAT(Create(NewJob("a")), IsOk());
  EXPECT_THAT(Named(&v1::JobService::Stub::RetryJob, "jobs/a"),
              FailsWith(StatusCode::kFailedPrecondition, "JOB_NOT_RETRYABLE"));
  EXPECT_THAT(Named(&v1::JobService::Stub::ResumeJob, "jobs/a"),
              FailsWith(StatusCode::kFailedPrecondition, "JOB_NOT_PAUSED"));
  v1::DeleteJobRequest remove;
  remove.set_name("jobs/a");
  EXPECT_THAT(Do<google::protobuf::Empty>(&v1::JobService::Stub::DeleteJob, remove),
              FailsWith(StatusCode::kFailedPrecondition, "JOB_NOT_FINAL"));
  EXPECT_EQ(Named(&v1::JobService::Stub::PauseJob, "jobs/a")->state(), v1::Job::PAUSED);
  EXPECT_EQ(Named(&v1::JobService::Stub::ResumeJob, "jobs/a")->state(), v1::Job::QUEUED);
  EXPECT_EQ(Named(&v1::JobService::Stub::CancelJob, "jobs/a")->state(), v1::Job::CANCELLED);
  EXPECT_EQ(Named(&v1::JobService::Stub::CancelJob, "jobs/a")->state(), v1::Job::CANCELLED);
  EXPECT_THAT(Named(&v1::JobService::Stub::PauseJob, "jobs/a"),
              FailsWith(StatusCode::kFailedPrecondition, "JOB_FINAL"));
  EXPECT_EQ(Named(&v1::JobService::Stub::RetryJob, "jobs/a")->state(), v1::Job::QUEUED);
  EXPECT_EQ(Named(&v1::JobService::Stub::CancelJob, "jobs/a")->state(), v1::Job::CANCELLED);
  EXPECT_THAT(Do<google::protobuf::Empty>(&v1::JobService::Stub::DeleteJob, remove), IsOk());
  EXPECT_THAT(Get("jobs/a"), FailsWith(StatusCode::kNotFound, "JOB_NOT_FOUND"));
}

TEST_F(ServiceTest, PagesFiltersAndOrders) {
  for (int i = 0; i < 7; ++i) {
    v1::CreateJobRequest request = NewJob("j" + std::to_string(i));
    request.mutable_job()->set_priority(i % 3);
    (*request.mutable_job()->mutable_labels())["parity"] = i % 2 == 0 ? "even" : "odd";
    ASSERT_THAT(Create(request), IsOk());
  }
  std::vector<std::string> names;
  std::string token;
  do {
    const auto page = List("", 3, token);
    ASSERT_THAT(page, IsOk());
    for (const auto& job : page->jobs()) names.push_back(job.name());
    token = page->next_page_token();
  } while (!token.empty());
  EXPECT_EQ(names.size(), 7u);
  EXPECT_EQ(names.front(), "jobs/j6");
  EXPECT_EQ(names.back(), "jobs/j0");
  EXPECT_EQ(List("labels.parity=\"even\"")->jobs_size(), 4);
  EXPECT_EQ(List("labels.parity != even AND state=QUEUED")->jobs_size(), 3);
  EXPECT_EQ(List("tenant=other")->jobs_size(), 0);
  EXPECT_EQ(List("tenant=other OR labels.parity=odd")->jobs_size(), 3);
  EXPECT_EQ(List("create_time>\"2001-01-01T00:00:00Z\" AND priority>=2")->jobs_size(), 2);
  const auto by_priority = List("", 2, "", "priority desc");
  EXPECT_EQ(by_priority->jobs(0).name(), "jobs/j2");
  EXPECT_EQ(by_priority->jobs(1).name(), "jobs/j5");
  EXPECT_EQ(List("", 2, by_priority->next_page_token(), "priority desc")->jobs(0).name(),
            "jobs/j1");
  EXPECT_EQ(List("", 1, "", "name")->jobs(0).name(), "jobs/j0");
}

TEST_F(ServiceTest, BadListsAreRefused) {
  for (const char* filter :
       {"state", "state=", "state=DONE", "bogus=1", "state=QUEUED OR", "OR state=QUEUED",
        "state=QUEUED AND", "tenant=\"x", "tenant>x", "create_time>yesterday", "priority=high"}) {
    EXPECT_THAT(List(filter), FailsWith(StatusCode::kInvalidArgument, "INVALID_FILTER")) << filter;
  }
  EXPECT_THAT(List("", 0, "", "size"), FailsWith(StatusCode::kInvalidArgument, "INVALID_ORDER"));
  EXPECT_THAT(List("", -1), FailsWith(StatusCode::kInvalidArgument, "INVALID_REQUEST"));
  EXPECT_THAT(List("", 0, "bogus"), FailsWith(StatusCode::kInvalidArgument, "INVALID_PAGE_TOKEN"));
  ASSERT_THAT(Create(NewJob()), IsOk());
  ASSERT_THAT(Create(NewJob()), IsOk());
  const std::string token = List("", 1)->next_page_token();
  EXPECT_THAT(List("tenant=x", 1, token),
              FailsWith(StatusCode::kInvalidArgument, "INVALID_PAGE_TOKEN"));
}

TEST_F(ServiceTest, WatchShowsEveryStateUpToTheLast) {
  ASSERT_THAT(Create(NewJob("a")), IsOk());
  grpc::ClientContext context;
  v1::WatchJobRequest request;
  request.set_name("jobs/a");
  auto stream = jobs_->WatchJob(&context, request);
  v1::WatchJobResponse message;
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_EQ(message.job().state(), v1::Job::QUEUED);
  EXPECT_EQ(message.tasks_size(), 1);
  RunAll();
  int64_t version = 0;
  v1::Job last = message.job();
  while (stream->Read(&message)) {
    EXPECT_GT(message.job().version(), version);
    version = message.job().version();
    last = message.job();
  }
  EXPECT_THAT(FromGrpcStatus(stream->Finish()), IsOk());
  EXPECT_EQ(last.state(), v1::Job::SUCCEEDED);
  // From the last version on there is nothing more to say.
  grpc::ClientContext again;
  request.set_after_version(version);
  auto rest = jobs_->WatchJob(&again, request);
  EXPECT_FALSE(rest->Read(&message));
  EXPECT_THAT(FromGrpcStatus(rest->Finish()), IsOk());
}

TEST_F(ServiceTest, WorkerOfAnotherVersionIsRefused) {
  v1::SynchronizeRequest request = Call();
  for (const int version : {1, kProtocolVersion + 1}) {
    request.set_protocol_version(version);
    EXPECT_THAT(Synchronize(request),
                FailsWith(StatusCode::kFailedPrecondition, "VERSION_MISMATCH",
                          ::testing::HasSubstr(absl::StrCat("protocol version ", version))));
  }
}

TEST_F(ServiceTest, MalformedWorkerCallsAreRefused) {
  const auto invalid = FailsWith(StatusCode::kInvalidArgument, "INVALID_REQUEST");
  v1::SynchronizeRequest request = Call();
  request.set_session_id("");
  EXPECT_THAT(Synchronize(request), invalid);
  request = Call();
  request.set_worker("w");
  EXPECT_THAT(Synchronize(request), invalid);
  request = Call();
  request.mutable_capabilities()->set_device("abacus");
  EXPECT_THAT(Synchronize(request), invalid);
  request = Call();
  request.set_num_free_slots(-1);
  EXPECT_THAT(Synchronize(request), invalid);
  request = Call();
  request.add_leases()->set_task("jobs/a/tasks/prepare");  // no status
  EXPECT_THAT(Synchronize(request), invalid);
  request = Call();
  request.add_cached()->set_job("nonsense");
  EXPECT_THAT(Synchronize(request), invalid);
  EXPECT_THAT(Synchronize(Call()), IsOk());
  request = Call();
  request.set_sequence(1);
  EXPECT_THAT(Synchronize(request), FailsWith(StatusCode::kAborted, "STALE_REQUEST"));
}

TEST_F(ServiceTest, UnknownLeaseIsLost) {
  v1::SynchronizeRequest request = Call();
  v1::LeaseReport* report = request.add_leases();
  report->set_lease_id("x");
  report->set_task("jobs/a/tasks/prepare");
  report->mutable_running();
  const auto response = Synchronize(request);
  ASSERT_THAT(response, IsOk());
  ASSERT_EQ(response->directives_size(), 1);
  EXPECT_EQ(response->directives(0).action(), v1::LeaseDirective::LOST);
}

TEST_F(ServiceTest, AdminSeesAndDrainsWorkers) {
  ASSERT_THAT(Synchronize(Call()), IsOk());
  grpc::ClientContext list_context;
  v1::ListWorkersResponse list;
  ASSERT_TRUE(admin_->ListWorkers(&list_context, {}, &list).ok());
  ASSERT_EQ(list.workers_size(), 1);
  EXPECT_EQ(list.workers(0).name(), "workers/w");
  EXPECT_EQ(list.workers(0).state(), v1::Worker::READY);
  grpc::ClientContext drain_context;
  v1::DrainWorkerRequest drain;
  drain.set_name("workers/w");
  v1::Worker worker;
  ASSERT_TRUE(admin_->DrainWorker(&drain_context, drain, &worker).ok());
  EXPECT_EQ(worker.state(), v1::Worker::DRAINING);
  EXPECT_TRUE(Synchronize(Call())->drain());
  grpc::ClientContext unknown_context;
  drain.set_name("workers/none");
  EXPECT_THAT(FromGrpcStatus(admin_->DrainWorker(&unknown_context, drain, &worker)),
              FailsWith(StatusCode::kNotFound, "WORKER_NOT_FOUND"));
  grpc::ClientContext info_context;
  v1::ServerInfo info;
  ASSERT_TRUE(admin_->GetServerInfo(&info_context, {}, &info).ok());
  EXPECT_EQ(info.state_backend(), "sqlite");
  EXPECT_TRUE(info.active());
  EXPECT_FALSE(info.has_wall_clock_ahead());
  grpc::ClientContext confirm_context;
  EXPECT_TRUE(admin_->ConfirmWallClock(&confirm_context, {}, &info).ok());
}

TEST_F(ServiceTest, AdminSeesThatANameIsDrained) {
  v1::SynchronizeRequest first = Call(), second = Call();
  second.set_session_id("session-next");
  ASSERT_THAT(Synchronize(first), IsOk());
  v1::DrainWorkerRequest drain;
  v1::Worker worker;
  drain.set_name("workers/w");
  grpc::ClientContext drain_context;
  ASSERT_TRUE(admin_->DrainWorker(&drain_context, drain, &worker).ok());
  EXPECT_FALSE(Synchronize(second)->drain());
  grpc::ClientContext list_context;
  v1::ListWorkersResponse list;
  ASSERT_TRUE(admin_->ListWorkers(&list_context, {}, &list).ok());
  ASSERT_EQ(list.workers_size(), 1);
  EXPECT_EQ(list.workers(0).session_id(), "session-next");
  EXPECT_EQ(list.workers(0).state(), v1::Worker::DRAINING);
  EXPECT_THAT(list.workers(0).status_message(), ::testing::HasSubstr("name is drained"));
  v1::UndrainWorkerRequest undrain;
  undrain.set_name("workers/w");
  grpc::ClientContext undrain_context;
  ASSERT_TRUE(admin_->UndrainWorker(&undrain_context, undrain, &worker).ok());
  EXPECT_EQ(worker.state(), v1::Worker::READY);
  EXPECT_EQ(worker.status_message(), "");
}

TEST_F(ServiceTest, AdminTellsProcessesOfOneNameApart) {
  v1::SynchronizeRequest one = Call(), two = Call();
  one.set_session_id("session-aaaaaaaaaa");
  two.set_session_id("session-bbbbbbbbbb");
  for (int i = 0; i < 3; ++i) {
    one.set_sequence(i + 1);
    two.set_sequence(i + 1);
    ASSERT_THAT(Synchronize(one), IsOk());
    ASSERT_THAT(Synchronize(two), IsOk());
  }
  EXPECT_TRUE(Synchronize(two)->name_shared());
  grpc::ClientContext list_context;
  v1::ListWorkersResponse list;
  ASSERT_TRUE(admin_->ListWorkers(&list_context, {}, &list).ok());
  ASSERT_EQ(list.workers_size(), 2);
  EXPECT_EQ(list.workers(0).name(), list.workers(1).name());
  EXPECT_NE(list.workers(0).process(), list.workers(1).process());
  v1::DrainWorkerRequest drain;
  v1::Worker worker;
  drain.set_name("workers/w");
  grpc::ClientContext ambiguous_context;
  EXPECT_THAT(FromGrpcStatus(admin_->DrainWorker(&ambiguous_context, drain, &worker)),
              FailsWith(StatusCode::kFailedPrecondition, "WORKER_AMBIGUOUS"));
  drain.set_name("workers/w@aaaaaaaa");
  grpc::ClientContext drain_context;
  ASSERT_TRUE(admin_->DrainWorker(&drain_context, drain, &worker).ok());
  EXPECT_EQ(worker.session_id(), "session-aaaaaaaaaa");
  EXPECT_FALSE(Synchronize(two)->drain());
  EXPECT_TRUE(Synchronize(one)->drain());
}

TEST_F(ServiceTest, ErrorsCarryErrorInfo) {
  grpc::ClientContext context;
  v1::Job job;
  v1::GetJobRequest request;
  request.set_name("jobs/none");
  const grpc::Status status = jobs_->GetJob(&context, request, &job);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_NE(status.error_details().find("JOB_NOT_FOUND"), std::string::npos);
}

TEST_F(ServiceTest, ShutdownEndsStreamsAndHeldCalls) {
  ASSERT_THAT(Create(NewJob("a")), IsOk());
  ASSERT_THAT(Named(&v1::JobService::Stub::PauseJob, "jobs/a"), IsOk());
  grpc::ClientContext context;
  v1::WatchJobRequest watch;
  watch.set_name("jobs/a");
  auto stream = jobs_->WatchJob(&context, watch);
  v1::WatchJobResponse message;
  ASSERT_TRUE(stream->Read(&message));
  server_->Shutdown();
  while (stream->Read(&message)) {
  }
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

// A job of many tasks whose failures are told at length: clients refuse messages beyond 4 MiB.
TEST(WatchUpdatesTest, ManyTasksComeInMessagesOfModerateSize) {
  const Now now{absl::FromUnixSeconds(1700000000), absl::Seconds(100)};
  State state = *Rebuild(Policy(), {}, 1, 1, now);
  Edits edits;
  CreateJobEvent create;
  create.job.id = create.job.uid = "a";
  ASSERT_THAT(Apply(&state, create, now, &edits).status, IsOk());
  JobEntry& entry = state.jobs.begin()->second;
  for (int i = 1; i <= 3000; ++i) {
    Task task;
    task.id = absl::StrCat("layer-", i);
    task.kind = TaskKind::kLayer;
    task.version = entry.job.version;
    task.failures.resize(1);
    task.failures[0].message = std::string(2000, 'm');
    entry.tasks.push_back(task);
  }
  PublishedState published;
  published.Publish(state, edits);
  WatchUpdates updates(&published);
  const auto update = updates.After(entry.job.seq, 0, -1);
  ASSERT_TRUE(update.has_value());
  ASSERT_GT(update->responses.size(), 4u);
  int num_tasks = 0;
  for (const auto& response : update->responses) {
    EXPECT_LT(response->ByteSizeLong(), 2u << 20);
    EXPECT_EQ(response->more(), response != update->responses.back());
    EXPECT_EQ(response->job().version(), entry.job.version);
    num_tasks += response->tasks_size();
  }
  EXPECT_EQ(num_tasks, 3001);
}

TEST(MethodsTest, EveryMethodOfTheProtosHasARowAndEveryRowAMethod) {
  std::set<std::string> methods, rows;
  for (const auto* file :
       {v1::CreateJobRequest::descriptor()->file(), v1::SynchronizeRequest::descriptor()->file(),
        v1::GetServerInfoRequest::descriptor()->file()}) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) {
        methods.insert(
            absl::StrCat(file->service(s)->name(), "/", file->service(s)->method(m)->name()));
      }
    }
  }
  for (const Method& row : kMethods) {
    rows.insert(absl::StrCat(std::string(row.service), "/", std::string(row.name)));
  }
  EXPECT_EQ(rows, methods);
  EXPECT_EQ(rows.size(), std::size(kMethods));
}

TEST(MethodsTest, ACallerWithoutTheRightIsRefused) {
  Principal worker;
  worker.grants = {{Role::kWorker, TenantScope(), ""}};
  EXPECT_THAT(CheckAccess(worker, MethodRow("Synchronize")), IsOk());
  for (const Method& method : kMethods) {
    EXPECT_THAT(CheckAccess(Anonymous(), method), IsOk());
    if (method.verb == Verb::kWork) continue;
    EXPECT_THAT(CheckAccess(worker, method),
                FailsWith(StatusCode::kPermissionDenied, "PERMISSION_DENIED"));
  }
}

TEST(StoredJobTest, ADamagedSpecOrReportIsRefusedByNameWhereTheStateIsRead) {
  Job job;
  job.id = "j";
  EXPECT_THAT(CheckStoredJob(job), IsOk());
  job.spec = "\xFF\xFF not a spec";
  EXPECT_THAT(CheckStoredJob(job), FailsWith(StatusCode::kDataLoss, "STATE_CORRUPT"));
  job.spec.clear();
  job.report = "\x0A\x7F";
  EXPECT_THAT(CheckStoredJob(job), FailsWith(StatusCode::kDataLoss, "STATE_CORRUPT"));
}

TEST(WatchUpdatesTest, WatchersThatHaveSeenTheSameShareOneUpdate) {
  const Now now{absl::FromUnixSeconds(1700000000), absl::Seconds(100)};
  State state = *Rebuild(Policy(), {}, 1, 1, now);
  PublishedState published;
  const auto apply = [&](const Event& event) {
    Edits edits;
    EXPECT_THAT(Apply(&state, event, now, &edits).status, IsOk());
    published.Publish(state, edits);
  };
  CreateJobEvent create;
  create.job.id = create.job.uid = "a";
  apply(create);
  const uint64_t job = state.FindJob("a")->job.seq;
  WatchUpdates updates(&published);
  const auto first = updates.After(job, 0, -1);
  ASSERT_TRUE(first.has_value() && first->responses.size() == 1);
  EXPECT_EQ(first->responses[0]->tasks_size(), 1);
  EXPECT_FALSE(first->responses[0]->more());
  EXPECT_FALSE(first->final);
  EXPECT_EQ(updates.After(job, 0, -1)->responses, first->responses);
  EXPECT_EQ(updates.num_made(), 1);

  const int64_t version = first->responses[0]->job().version();
  EXPECT_TRUE(updates.After(job, version, version)->responses.empty());
  EXPECT_EQ(updates.After(job, 0, version)->responses[0]->tasks_size(), 0);
  EXPECT_EQ(updates.num_made(), 2);

  apply(PauseJobEvent{"a"});
  const auto second = updates.After(job, version, version);
  ASSERT_EQ(second->responses.size(), 1u);
  EXPECT_EQ(second->responses[0]->job().state(), v1::Job::PAUSED);
  EXPECT_EQ(second->responses[0]->tasks_size(), 0) << "no task has changed";
  apply(CancelJobEvent{"a"});
  const auto last = updates.After(job, version, version);
  EXPECT_TRUE(last->final);
  EXPECT_EQ(last->responses[0]->tasks_size(), 1);
  apply(DeleteJobEvent{"a"});
  EXPECT_FALSE(updates.After(job, version, version).has_value());
}

}  // namespace
}  // namespace uniquanf::server
