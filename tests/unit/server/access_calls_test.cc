// Calls with identities over real connections (SECURITY T1, T2, T5): by certificate and by token,
// every method as every kind of caller, and what a worker may do with the leases of another.
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/artifact/manifest.h"
#include "common/artifact/signature.h"
#include "common/base/clock.h"
#include "common/base/digest.h"
#include "common/base/ids.h"
#include "common/base/version.h"
#include "common/rpc/channel.h"
#include "common/rpc/status_proto.h"
#include "server/service/server_process.h"
#include "server/service/spec_locations.h"
#include "tests/support/sample_artifact.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tls_certificates.h"
#include "tests/support/token_signer.h"

namespace uniquanf::server {
namespace {

using absl::StatusCode;
using nlohmann::json;
using ::testing::HasSubstr;

// Somebody who calls: over a connection with or without a certificate, with or without a token.
struct Someone {
  std::shared_ptr<grpc::Channel> channel;
  std::string token;
};

class AccessCallsTest : public ::testing::Test {
 protected:
  AccessCallsTest()
      : authority_(dir_.path(), "ours"), signer_("ES256", "k"), ids_(NewSeededIdGenerator(1)) {
    std::ofstream(dir_.File("keys.json")) << TokenKeySet({&signer_});
    WritePolicy({});
    AccessOptions access;
    access.policy_file = dir_.File("policy.json");
    access.period = absl::Milliseconds(20);
    access_ = *AccessControl::Start(std::move(access), &SystemClock());
    ServerProcessOptions options;
    options.listen = "127.0.0.1:0";
    options.object_root = "file://" + dir_.File("objects");
    options.shutdown_timeout = absl::Seconds(1);
    const TlsFiles files = authority_.Issue("server");
    options.tls = {files.certificate, files.key, authority_.certificate_file(),
                   /*client_certificate_optional=*/true};
    options.access = access_.get();
    audit_ = *AuditLog::Open(dir_.File("audit.log"), nullptr);
    options.audit = audit_.get();
    server_ = std::make_unique<ServerProcess>(std::move(options),
                                              NewSqliteStore(dir_.File("state.sqlite")),
                                              &SystemClock(), ids_.get(), nullptr, nullptr);
    const absl::Status started = server_->Start();
    EXPECT_THAT(started, IsOk());
    bare_ = Connect(nullptr);
    // Keys are read by then.
    while (absl::IsUnavailable(Get(Token("a", "alice"), "jobs/none").status())) {
      absl::SleepFor(absl::Milliseconds(5));
    }
  }

  void WritePolicy(const json& more_bindings, const json& worker_rules = json::object()) {
    json bindings = {{{"principals", {"tenant/*/user/viewer"}}, {"role", "viewer"}},
                     {{"principals", {"operator/*"}}, {"role", "operator"}},
                     {{"principals", {"worker/*"}}, {"role", "worker"}}};
    for (const char* tenant : {"a", "m"}) {
      for (const char* name : {"alice", "mallory"}) {
        bindings.push_back(
            {{"principals", {absl::StrCat("tenant/", tenant, "/user/", name)}}, {"role", "user"}});
      }
    }
    for (const json& binding : more_bindings) bindings.push_back(binding);
    const json issuer = {{"issuer", "i"}, {"audience", "a"}, {"keys", dir_.File("keys.json")}};
    json operators = issuer, workers = issuer;
    operators.update({{"kind", "operator"}, {"audience", "ops"}});
    workers.update({{"kind", "worker"}, {"audience", "workers"}});
    std::ofstream(dir_.File("policy.new"))
        << json{{"version", 1},
                {"certificates", {{"trust_domain", "d"}}},
                {"tokens", {issuer, operators, workers}},
                {"bindings", bindings},
                {"workers", worker_rules},
                {"tenants",
                 {{"a",
                   {{"max_creates_per_second", 1e6},
                    {"data", {{"read", {"file:///models", "file:///data"}}}}}},
                  {"*", {{"data", {{"read", {"file:///models", "file:///data"}}}}}},
                  {"m",
                   {{"max_queued_jobs", 2},
                    {"data",
                     {{"read", {"file:///models", "file:///data", "s3://models/m"}},
                      {"output", {"s3://results/m"}},
                      {"credentials", "file:mallory"}}}}}}}};
    std::rename(dir_.File("policy.new").c_str(), dir_.File("policy.json").c_str());
  }
  std::shared_ptr<grpc::Channel> Connect(const TlsFiles* files) {
    ChannelOptions options;
    options.tls.ca_file = authority_.certificate_file();
    if (files != nullptr) {
      options.tls.certificate_file = files->certificate;
      options.tls.key_file = files->key;
    }
    return *MakeChannel(absl::StrCat("localhost:", server_->port()), options);
  }
  Someone Token(const std::string& tenant, const std::string& name, const char* audience = "a",
                absl::Duration life = absl::Hours(1)) {
    json claims = {{"iss", "i"},
                   {"aud", audience},
                   {"sub", name},
                   {"exp", absl::ToUnixSeconds(absl::Now() + life)}};
    if (!tenant.empty()) claims["tenant"] = tenant;
    return {bare_, signer_.Sign(claims)};
  }
  Someone Certificate(const std::string& path) {
    std::string file = path;
    std::replace(file.begin(), file.end(), '/', '-');
    const TlsFiles files = authority_.IssueFor(file, "spiffe://d/" + path);
    return {Connect(&files), ""};
  }
  Someone Nobody() { return {bare_, ""}; }

  static void Prepare(const Someone& who, grpc::ClientContext* context) {
    context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    if (!who.token.empty()) context->AddMetadata("authorization", "Bearer " + who.token);
  }
  template <typename Stub, typename Request, typename Response>
  absl::Status Call(const Someone& who,
                    grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    Prepare(who, &context);
    Stub stub(who.channel);
    return FromGrpcStatus((stub.*method)(&context, request, response));
  }
  using Jobs = v1::JobService::Stub;
  absl::StatusOr<v1::Job> Create(const Someone& who, const std::string& id,
                                 const std::string& tenant = "", int priority = 0) {
    v1::CreateJobRequest request;
    request.set_job_id(id);
    request.mutable_job()->set_tenant(tenant);
    request.mutable_job()->set_priority(priority);
    v1::QuantizationSpec* spec = request.mutable_job()->mutable_spec();
    spec->set_model_uri("file:///models/tiny");
    spec->set_calibration_uri("file:///data/calibration.safetensors");
    spec->set_bits(3);
    v1::Job job;
    UQ_RETURN_IF_ERROR(Call(who, &Jobs::CreateJob, request, &job));
    return job;
  }
  template <typename Request>
  absl::Status Named(const Someone& who,
                     grpc::Status (Jobs::*method)(grpc::ClientContext*, const Request&, v1::Job*),
                     const std::string& name) {
    Request request;
    request.set_name(name);
    v1::Job job;
    return Call(who, method, request, &job);
  }
  absl::StatusOr<v1::Job> Get(const Someone& who, const std::string& name) {
    v1::GetJobRequest request;
    request.set_name(name);
    v1::Job job;
    UQ_RETURN_IF_ERROR(Call(who, &Jobs::GetJob, request, &job));
    return job;
  }
  absl::StatusOr<v1::ListJobsResponse> List(const Someone& who, const std::string& token = "",
                                            int size = 0) {
    v1::ListJobsRequest request;
    request.set_page_token(token);
    request.set_page_size(size);
    v1::ListJobsResponse response;
    UQ_RETURN_IF_ERROR(Call(who, &Jobs::ListJobs, request, &response));
    return response;
  }
  // The first message, or how the stream ends.
  absl::Status Watch(const Someone& who, const std::string& name) {
    grpc::ClientContext context;
    Prepare(who, &context);
    v1::WatchJobRequest request;
    request.set_name(name);
    Jobs stub(who.channel);
    const auto reader = stub.WatchJob(&context, request);
    v1::WatchJobResponse response;
    if (reader->Read(&response)) {
      context.TryCancel();
      (void)reader->Finish();
      return absl::OkStatus();
    }
    return FromGrpcStatus(reader->Finish());
  }
  absl::Status WatchAll(const Someone& who) {
    grpc::ClientContext context;
    Prepare(who, &context);
    Jobs stub(who.channel);
    const auto reader = stub.WatchJobs(&context, v1::WatchJobsRequest());
    v1::WatchJobsResponse response;
    if (reader->Read(&response)) {
      context.TryCancel();
      (void)reader->Finish();
      return absl::OkStatus();
    }
    return FromGrpcStatus(reader->Finish());
  }
  v1::SynchronizeRequest Hello(const std::string& session, int64_t sequence) {
    v1::SynchronizeRequest request;
    request.set_session_id(session);
    request.set_worker("workers/somebody-else");
    request.set_protocol_version(kProtocolVersion);
    request.set_sequence(sequence);
    request.mutable_capabilities()->set_device("cpu");
    request.mutable_capabilities()->set_num_slots(1);
    return request;
  }
  absl::StatusOr<v1::SynchronizeResponse> Synchronize(const Someone& who,
                                                      const v1::SynchronizeRequest& request) {
    v1::SynchronizeResponse response;
    UQ_RETURN_IF_ERROR(Call(who, &v1::WorkerService::Stub::Synchronize, request, &response));
    return response;
  }

  // Calls the method of this name on a job, or as a worker.
  absl::Status CallByName(const Someone& who, const std::string& method, const std::string& job) {
    v1::Job reply;
    if (method == "CreateJob")
      return Create(who, "", job.substr(8, job.find("/jobs") - 8)).status();
    if (method == "GetJob") return Get(who, job).status();
    if (method == "ListJobs") return List(who).status();
    if (method == "WatchJob") return Watch(who, job);
    if (method == "CancelJob") return Named(who, &Jobs::CancelJob, job);
    if (method == "RetryJob") return Named(who, &Jobs::RetryJob, job);
    if (method == "PauseJob") return Named(who, &Jobs::PauseJob, job);
    if (method == "ResumeJob") return Named(who, &Jobs::ResumeJob, job);
    if (method == "DeleteJob") {
      v1::DeleteJobRequest request;
      request.set_name(job);
      google::protobuf::Empty empty;
      return Call(who, &Jobs::DeleteJob, request, &empty);
    }
    if (method == "GetTask") {
      v1::GetTaskRequest request;
      request.set_name(job + "/tasks/prepare");
      v1::Task task;
      return Call(who, &Jobs::GetTask, request, &task);
    }
    if (method == "ListTasks") {
      v1::ListTasksRequest request;
      request.set_parent(job);
      v1::ListTasksResponse response;
      return Call(who, &Jobs::ListTasks, request, &response);
    }
    if (method == "GetJobMetrics") {
      v1::GetJobMetricsRequest request;
      request.set_name(job);
      v1::JobMetrics metrics;
      return Call(who, &Jobs::GetJobMetrics, request, &metrics);
    }
    if (method == "EstimateJob") {
      v1::EstimateJobRequest request;
      request.mutable_job()->set_tenant(job.substr(8, job.find("/jobs") - 8));
      v1::JobEstimate estimate;
      return Call(who, &Jobs::EstimateJob, request, &estimate);
    }
    if (method == "WatchJobs") return WatchAll(who);
    if (method == "Synchronize") {
      return Synchronize(who, Hello(ids_->NewId("session"), 1)).status();
    }
    using Admin = v1::AdminService::Stub;
    v1::ServerInfo info;
    v1::Worker worker;
    if (method == "ListWorkers") {
      v1::ListWorkersResponse response;
      return Call(who, &Admin::ListWorkers, v1::ListWorkersRequest(), &response);
    }
    if (method == "DrainWorker") {
      v1::DrainWorkerRequest request;
      request.set_name("workers/w");
      return Call(who, &Admin::DrainWorker, request, &worker);
    }
    if (method == "UndrainWorker") {
      v1::UndrainWorkerRequest request;
      request.set_name("workers/w");
      return Call(who, &Admin::UndrainWorker, request, &worker);
    }
    if (method == "GetServerInfo") {
      return Call(who, &Admin::GetServerInfo, v1::GetServerInfoRequest(), &info);
    }
    if (method == "ConfirmWallClock") {
      return Call(who, &Admin::ConfirmWallClock, v1::ConfirmWallClockRequest(), &info);
    }
    return absl::UnimplementedError("a new method: say here how it is called, and below by whom");
  }

  TempDir dir_;
  TlsAuthority authority_;
  TokenSigner signer_;
  std::unique_ptr<IdGenerator> ids_;
  std::unique_ptr<AccessControl> access_;
  std::unique_ptr<AuditLog> audit_;
  std::unique_ptr<ServerProcess> server_;
  std::shared_ptr<grpc::Channel> bare_;
};

// R5 to R8: foreign jobs look as if they were not there, whoever looks and however he proves it.
TEST_F(AccessCallsTest, T1_ForeignJobsAreNotThere) {
  const Someone alice = Token("a", "alice");
  ASSERT_THAT(Create(alice, "secret"), IsOk());
  ASSERT_THAT(Create(alice, "other"), IsOk());
  EXPECT_EQ(Get(alice, "jobs/secret")->tenant(), "a");
  EXPECT_EQ(Get(alice, "jobs/secret")->name(), "jobs/secret");
  for (const Someone& mallory : {Token("m", "mallory"), Certificate("tenant/m/user/mallory")}) {
    for (const char* method : {"GetJob", "WatchJob", "CancelJob", "RetryJob", "PauseJob",
                               "ResumeJob", "DeleteJob", "ListTasks", "GetTask", "GetJobMetrics"}) {
      for (const std::string prefix : {"jobs/", "tenants/a/jobs/"}) {
        const absl::Status foreign = CallByName(mallory, method, prefix + "secret");
        const absl::Status absent = CallByName(mallory, method, prefix + "absent");
        EXPECT_EQ(foreign.code(), StatusCode::kNotFound) << method;
        EXPECT_EQ(ErrorReason(foreign), ErrorReason(absent)) << method;
        // The same text, but for the name that the caller gave.
        std::string text(foreign.message());
        const size_t at = text.find("secret");
        ASSERT_NE(at, std::string::npos) << text;
        EXPECT_EQ(text.replace(at, 6, "absent"), std::string(absent.message())) << method;
      }
    }
    EXPECT_THAT(Create(mallory, "mine", "a"),
                FailsWith(StatusCode::kPermissionDenied, "TENANT_NOT_ALLOWED"));
    EXPECT_EQ(List(mallory)->jobs_size(), 0);
  }
  // Her own may have the same name.
  const Someone mallory = Token("m", "mallory");
  ASSERT_THAT(Create(mallory, "secret"), IsOk());
  EXPECT_THAT(Create(mallory, "secret"), FailsWith(StatusCode::kAlreadyExists, "JOB_EXISTS"));
  const auto listed = List(mallory);
  ASSERT_EQ(listed->jobs_size(), 1);
  EXPECT_EQ(listed->jobs(0).tenant(), "m");
  EXPECT_THAT(listed->jobs(0).spec().output_uri(),
              HasSubstr("/objects/tenants/m/artifacts/secret-"));
  EXPECT_THAT(CallByName(mallory, "CancelJob", "jobs/secret"), IsOk());
  EXPECT_EQ(Get(alice, "jobs/secret")->state(), v1::Job::QUEUED);
  EXPECT_EQ(Get(mallory, "jobs/secret")->state(), v1::Job::CANCELLED);
  // One who sees both says whose.
  const Someone ops = Token("", "o", "ops");
  EXPECT_THAT(Get(ops, "jobs/secret"), FailsWith(StatusCode::kInvalidArgument, "AMBIGUOUS_NAME"));
  EXPECT_EQ(Get(ops, "tenants/m/jobs/secret")->name(), "tenants/m/jobs/secret");
  EXPECT_EQ(Get(ops, "jobs/other")->name(), "tenants/a/jobs/other");
  EXPECT_EQ(List(ops)->jobs_size(), 3);
  // Nor does a page of one continue another's.
  const auto page = List(alice, "", 1);
  ASSERT_THAT(page, IsOk());
  ASSERT_NE(page->next_page_token(), "");
  EXPECT_THAT(List(mallory, page->next_page_token()),
              FailsWith(StatusCode::kInvalidArgument, "INVALID_PAGE_TOKEN"));
}

TEST_F(AccessCallsTest, T1_WithoutAnIdentityNothingButHealthIsAnswered) {
  ASSERT_THAT(Create(Token("a", "alice"), "j"), IsOk());
  for (const Method& method : kMethods) {
    EXPECT_THAT(CallByName(Nobody(), std::string(method.name), "tenants/a/jobs/j"),
                FailsWith(StatusCode::kUnauthenticated, "NO_IDENTITY"))
        << method.name;
  }
  EXPECT_THAT(Get(Certificate("tenant/A/user/x"), "jobs/j"),
              FailsWith(StatusCode::kUnauthenticated, "UNKNOWN_CERTIFICATE"));
  EXPECT_THAT(Get(Token("a", "alice", "a", -absl::Minutes(2)), "jobs/j"),
              FailsWith(StatusCode::kUnauthenticated, "TOKEN_EXPIRED"));
  // Somebody whom the policy gives nothing.
  EXPECT_THAT(Get(Token("a", "eve"), "jobs/j"),
              FailsWith(StatusCode::kPermissionDenied, "PERMISSION_DENIED"));
}

TEST_F(AccessCallsTest, TwoCallersOfOneConnectionAreTwo) {
  const Someone alice = Token("a", "alice"), mallory = Token("m", "mallory");
  ASSERT_EQ(alice.channel, mallory.channel);
  ASSERT_THAT(Create(alice, "j"), IsOk());
  for (int i = 0; i < 20; ++i) {
    EXPECT_THAT(Get(alice, "jobs/j"), IsOk());
    EXPECT_FALSE(Get(mallory, "jobs/j").ok());
    EXPECT_FALSE(Get(Nobody(), "jobs/j").ok());
  }
}

// R27.
TEST_F(AccessCallsTest, T17_EveryCallOnAForeignJobIsRecordedOnce) {
  const Someone alice = Token("a", "alice"), mallory = Token("m", "mallory");
  ASSERT_THAT(Create(alice, "secret"), IsOk());
  const auto lines_of = [&](const std::string& principal) {
    audit_->Flush();
    std::ifstream file(dir_.File("audit.log"));
    std::vector<json> lines;
    for (std::string text; std::getline(file, text);) {
      const json line = json::parse(text);
      if (line.value("principal", "") == principal) lines.push_back(line);
    }
    return lines;
  };
  const json created = lines_of("tenant/a/user/alice").back();
  EXPECT_EQ(created["method"], "JobService/CreateJob");
  EXPECT_EQ(created["decision"], "allowed");
  EXPECT_EQ(created["resource"], "jobs/secret");
  EXPECT_EQ(created["tenant"], "a");
  EXPECT_EQ(created["spec_sha256"].get<std::string>().size(), 64u);
  EXPECT_EQ(created["uris"][0], "file:///models/tiny");
  EXPECT_THAT(created["peer"].get<std::string>(), HasSubstr("127.0.0.1"));
  size_t num_calls = 0;
  for (const char* method : {"GetJob", "WatchJob", "CancelJob", "RetryJob", "PauseJob", "ResumeJob",
                             "DeleteJob", "ListTasks", "GetTask"}) {
    EXPECT_FALSE(CallByName(mallory, method, "jobs/secret").ok());
    const std::vector<json> lines = lines_of("tenant/m/user/mallory");
    ASSERT_EQ(lines.size(), ++num_calls) << method;
    EXPECT_EQ(lines.back()["method"], absl::StrCat("JobService/", method));
    EXPECT_EQ(lines.back()["decision"], "denied");
    EXPECT_EQ(lines.back()["authenticator"], "jwt");
    EXPECT_EQ(lines.back()["code"], "NOT_FOUND");
    EXPECT_THAT(lines.back()["resource"].get<std::string>(), HasSubstr("jobs/secret"));
  }
  EXPECT_FALSE(Create(mallory, "x", "a").ok());
  EXPECT_EQ(lines_of("tenant/m/user/mallory").back()["reason"], "TENANT_NOT_ALLOWED");
  // What reads and succeeds leaves no line.
  const size_t before = lines_of("tenant/a/user/alice").size();
  EXPECT_THAT(Get(alice, "jobs/secret"), IsOk());
  EXPECT_EQ(lines_of("tenant/a/user/alice").size(), before);
  EXPECT_THAT(CallByName(Certificate("operator/o"), "CancelJob", "jobs/secret"), IsOk());
  const json cancelled = lines_of("operator/o").back();
  EXPECT_EQ(cancelled["tenant"], "a");
  EXPECT_EQ(cancelled["authenticator"], "mtls");
  EXPECT_FALSE(Get(Nobody(), "jobs/secret").ok());
  EXPECT_EQ(lines_of("").back()["reason"], "NO_IDENTITY");
  // And a lease.
  ASSERT_THAT(Create(alice, "leased"), IsOk());
  v1::SynchronizeRequest request = Hello("s", 1);
  request.set_num_free_slots(1);
  ASSERT_THAT(Synchronize(Certificate("worker/w"), request), IsOk());
  const json lease = lines_of("worker/w").back();
  EXPECT_EQ(lease["method"], "Lease");
  EXPECT_EQ(lease["tenant"], "a");
  EXPECT_EQ(lease["resource"], "tenants/a/jobs/leased/tasks/prepare");
}

// R27: with --audit-required nothing changes while nobody can say who did it.
TEST(AuditRequiredTest, T17_OnAFullDiskNothingIsChanged) {
  TempDir dir;
  const auto ids = NewSeededIdGenerator(1);
  const auto audit = *AuditLog::Open("/dev/full", nullptr);
  ServerProcessOptions options;
  options.listen = "";
  options.object_root = "file://" + dir.File("objects");
  options.audit = audit.get();
  options.audit_required = true;
  ServerProcess server(std::move(options), NewSqliteStore(dir.File("state.sqlite")), &SystemClock(),
                       ids.get(), nullptr, nullptr);
  ASSERT_THAT(server.Start(), IsOk());
  const auto stub = v1::JobService::NewStub(server.InProcessChannel());
  const auto unavailable = FailsWith(StatusCode::kUnavailable, "AUDIT_UNAVAILABLE");
  {
    grpc::ClientContext context;
    v1::Job job;
    v1::CancelJobRequest cancel;
    cancel.set_name("jobs/j");
    EXPECT_THAT(FromGrpcStatus(stub->CancelJob(&context, cancel, &job)), unavailable);
  }
  {
    grpc::ClientContext context;
    v1::Job job;
    EXPECT_THAT(FromGrpcStatus(stub->CreateJob(&context, v1::CreateJobRequest(), &job)),
                unavailable);
  }
  grpc::ClientContext context;
  v1::ListJobsResponse jobs;
  EXPECT_THAT(FromGrpcStatus(stub->ListJobs(&context, v1::ListJobsRequest(), &jobs)), IsOk());
  EXPECT_GT(audit->num_failures(), 0);
}

// R5: the table, written down once more by hand.
TEST_F(AccessCallsTest, T2_EveryMethodAnswersEveryKindOfCallerAsTheTableSays) {
  enum Answer { kYes, kDenied, kHidden };
  struct Row {
    const char* method;
    Answer viewer, own, foreign, of_operator, of_worker;
  };
  const Row rows[] = {
      {"CreateJob", kDenied, kYes, kDenied, kDenied, kDenied},
      {"GetJob", kYes, kYes, kHidden, kYes, kDenied},
      {"ListJobs", kYes, kYes, kYes, kYes, kDenied},
      {"WatchJob", kYes, kYes, kHidden, kYes, kDenied},
      {"CancelJob", kDenied, kYes, kHidden, kYes, kDenied},
      {"RetryJob", kDenied, kYes, kHidden, kDenied, kDenied},
      {"PauseJob", kDenied, kYes, kHidden, kDenied, kDenied},
      {"ResumeJob", kDenied, kYes, kHidden, kDenied, kDenied},
      {"DeleteJob", kDenied, kYes, kHidden, kDenied, kDenied},
      {"GetTask", kYes, kYes, kHidden, kYes, kDenied},
      {"ListTasks", kYes, kYes, kHidden, kYes, kDenied},
      {"GetJobMetrics", kYes, kYes, kHidden, kYes, kDenied},
      {"EstimateJob", kDenied, kYes, kYes, kDenied, kDenied},  // of nobody's job yet
      {"WatchJobs", kYes, kYes, kYes, kYes, kDenied},
      {"Synchronize", kDenied, kDenied, kDenied, kDenied, kYes},
      {"ListWorkers", kDenied, kDenied, kDenied, kYes, kDenied},
      {"DrainWorker", kDenied, kDenied, kDenied, kYes, kDenied},
      {"UndrainWorker", kDenied, kDenied, kDenied, kYes, kDenied},
      {"GetServerInfo", kDenied, kDenied, kDenied, kYes, kDenied},
      {"ConfirmWallClock", kDenied, kDenied, kDenied, kYes, kDenied},
  };
  std::set<std::string> walked;
  for (const auto* file :
       {v1::CreateJobRequest::descriptor()->file(), v1::SynchronizeRequest::descriptor()->file(),
        v1::GetServerInfoRequest::descriptor()->file()}) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) {
        walked.insert(file->service(s)->method(m)->name());
      }
    }
  }
  ASSERT_EQ(walked.size(), std::size(rows));
  const Someone alice = Token("a", "alice"), viewer = Token("a", "viewer"),
                foreign = Token("m", "mallory"), ops = Certificate("operator/o"),
                worker = Certificate("worker/w");
  for (const Row& row : rows) {
    EXPECT_EQ(walked.count(row.method), 1u) << row.method;
    const auto expect = [&](const char* who, const Someone& someone, Answer answer) {
      // A fresh one each time: some of the calls end it.
      const std::string id = ids_->NewId("j");
      ASSERT_THAT(Create(alice, id), IsOk());
      const absl::Status status = CallByName(someone, row.method, "tenants/a/jobs/" + id);
      const StatusCode code = status.code();
      const bool hidden = code == StatusCode::kNotFound;
      const bool denied =
          code == StatusCode::kPermissionDenied || code == StatusCode::kUnauthenticated;
      // UNKNOWN_WORKER and the like come after the right was found.
      const bool yes = !denied && (!hidden || ErrorReason(status).find("JOB") == std::string::npos);
      EXPECT_TRUE(answer == kYes      ? yes
                  : answer == kDenied ? denied
                                      : hidden)
          << row.method << " as " << who << ": " << status;
    };
    expect("viewer", viewer, row.viewer);
    expect("user", alice, row.own);
    expect("foreign user", foreign, row.foreign);
    expect("operator", ops, row.of_operator);
    expect("worker", worker, row.of_worker);
    EXPECT_THAT(CallByName(Nobody(), row.method, "tenants/a/jobs/x"),
                FailsWith(StatusCode::kUnauthenticated, "NO_IDENTITY"));
  }
}

TEST_F(AccessCallsTest, ATenantsCeilingBoundsItsPriorities) {
  EXPECT_THAT(Create(Token("a", "alice"), "j", "", 1),
              FailsWith(StatusCode::kPermissionDenied, "PRIORITY_NOT_ALLOWED"));
  EXPECT_THAT(Create(Token("a", "alice"), "j", "", -5), IsOk());
}

// R11, R12.
TEST_F(AccessCallsTest, T3_AJobThatNamesWhatIsNotItsTenantsIsRefusedBeforeItIsOne) {
  const Someone alice = Token("a", "alice");
  const auto create = [&](const std::function<void(v1::QuantizationSpec*)>& edit) {
    v1::CreateJobRequest request;
    v1::QuantizationSpec* spec = request.mutable_job()->mutable_spec();
    spec->set_model_uri("file:///models/tiny");
    spec->set_calibration_uri("file:///data/calibration.safetensors");
    edit(spec);
    v1::Job job;
    return Call(alice, &Jobs::CreateJob, request, &job);
  };
  const auto refused = FailsWith(StatusCode::kPermissionDenied, "DATA_NOT_ALLOWED");
  const std::string objects = "file://" + dir_.File("objects");
  EXPECT_THAT(create([](auto* spec) { spec->set_model_uri("file:///etc"); }), refused);
  EXPECT_THAT(create([](auto* spec) { spec->set_calibration_uri("file:///proc/self/root/x"); }),
              refused);
  EXPECT_THAT(create([](auto* spec) { spec->set_evaluation_uri("s3://other/x"); }), refused);
  EXPECT_THAT(create([](auto* spec) {
                v1::CalibrationShare* share = spec->add_calibration_mix();
                share->set_uri("file:///etc/passwd.txt");
                share->set_num_sequences(1);
                spec->set_calibration_uri("file:///data/calibration.txt");
              }),
              refused);
  EXPECT_THAT(create([](auto* spec) {
                spec->set_distill_window(1);
                spec->set_distillation_uri("file:///etc/passwd.txt");
              }),
              refused);
  EXPECT_THAT(create([](auto* spec) { spec->set_output_uri("file:///etc/pwned"); }), refused);
  EXPECT_THAT(create([&](auto* spec) { spec->set_output_uri(objects + "/tenants/a/x"); }), refused);
  EXPECT_THAT(create([&](auto* spec) { spec->set_model_uri(objects + "/tenants/m/x"); }), refused);
  EXPECT_THAT(create([](auto* spec) { spec->set_model_uri("file:///models/../etc"); }),
              FailsWith(StatusCode::kInvalidArgument, "INVALID_SPEC"));
  EXPECT_EQ(List(alice)->jobs_size(), 0);
  EXPECT_THAT(create([&](auto* spec) { spec->set_model_uri(objects + "/tenants/a/uploads/x"); }),
              IsOk());
}

// R9.
TEST_F(AccessCallsTest, ATenantsQuotaIsItsOwn) {
  const Someone mallory = Token("m", "mallory");
  EXPECT_THAT(Create(mallory, "1"), IsOk());
  EXPECT_THAT(Create(mallory, "2"), IsOk());
  EXPECT_THAT(Create(mallory, "3"), FailsWith(StatusCode::kResourceExhausted, "QUOTA_EXCEEDED"));
  for (const char* id : {"1", "2", "3"}) EXPECT_THAT(Create(Token("a", "alice"), id), IsOk());
}

// R6, R9: whatever he says in his requests.
TEST_F(AccessCallsTest, T14_OneWhoFillsTheQueueHoldsUpNobodyElse) {
  const Someone flooder = Token("a", "alice"), bob = Token("m", "mallory");
  EXPECT_THAT(Create(flooder, "first", "", 100),
              FailsWith(StatusCode::kPermissionDenied, "PRIORITY_NOT_ALLOWED"));
  EXPECT_THAT(Create(flooder, "other", "m"),
              FailsWith(StatusCode::kPermissionDenied, "TENANT_NOT_ALLOWED"));
  constexpr int kFlood = 60;
  for (int i = 0; i < kFlood; ++i) {
    ASSERT_THAT(Create(flooder, absl::StrCat("flood-", i), i % 2 == 0 ? "a" : ""), IsOk());
  }
  const Someone worker = Certificate("worker/w");
  v1::SynchronizeRequest request = Hello("s", 1);
  int num_before_bob = 0, num_since = 0;
  for (int i = 1; i <= kFlood; ++i) {
    if (i == 5) {
      ASSERT_THAT(Create(bob, "his"), IsOk());
    }
    request.set_sequence(i);
    request.set_num_free_slots(1);
    const auto reply = Synchronize(worker, request);
    ASSERT_THAT(reply, IsOk());
    ASSERT_EQ(reply->assignments_size(), 1);
    const v1::TaskAssignment& task = reply->assignments(0);
    if (task.task() == "tenants/m/jobs/his/tasks/prepare") break;
    ++(i < 5 ? num_before_bob : num_since);
    absl::SleepFor(absl::Milliseconds(2));  // worker time, which fair share counts
    request.clear_leases();
    v1::LeaseReport* report = request.add_leases();
    report->set_lease_id(task.lease_id());
    report->set_lease_token(task.lease_token());
    report->set_attempt(task.attempt());
    report->set_task(task.task());
    report->mutable_failed()->set_failure_class(v1::INVALID_INPUT);
  }
  EXPECT_EQ(num_before_bob, 4);
  EXPECT_LE(num_since, 3);
}

// R7: a stream ends with the right to it.
TEST_F(AccessCallsTest, AWatchEndsWhenTheRightOrTheTokenDoes) {
  WritePolicy({{{"principals", {"tenant/a/user/eve"}}, {"role", "viewer"}}});
  ASSERT_THAT(Create(Token("a", "alice"), "j"), IsOk());
  const Someone eve = Token("a", "eve");
  while (!Get(eve, "jobs/j").ok()) absl::SleepFor(absl::Milliseconds(5));
  const auto open = [&](const Someone& who, grpc::ClientContext* context) {
    Prepare(who, context);
    v1::WatchJobRequest request;
    request.set_name("jobs/j");
    auto reader = Jobs(who.channel).WatchJob(context, request);
    v1::WatchJobResponse first;
    EXPECT_TRUE(reader->Read(&first));
    return reader;
  };
  grpc::ClientContext by_right, by_time;
  const auto loses_right = open(eve, &by_right);
  // With the minute of leeway two seconds are left.
  const auto loses_time = open(Token("a", "alice", "a", -absl::Seconds(58)), &by_time);
  WritePolicy({});
  v1::WatchJobResponse none;
  EXPECT_FALSE(loses_right->Read(&none));
  EXPECT_THAT(FromGrpcStatus(loses_right->Finish()),
              FailsWith(StatusCode::kNotFound, "JOB_NOT_FOUND"));
  absl::SleepFor(absl::Seconds(3));
  EXPECT_THAT(Named(Token("a", "alice"), &Jobs::PauseJob, "jobs/j"), IsOk());  // a change
  EXPECT_FALSE(loses_time->Read(&none));
  EXPECT_THAT(FromGrpcStatus(loses_time->Finish()),
              FailsWith(StatusCode::kUnauthenticated, "TOKEN_EXPIRED"));
}

// R16, R17.
TEST_F(AccessCallsTest, T5_AWorkerReachesNeitherSessionNorLeaseOfAnother) {
  ASSERT_THAT(Create(Token("a", "alice"), "j"), IsOk());
  const Someone w1 = Certificate("worker/w1"), w2 = Token("", "w2", "workers");
  EXPECT_THAT(Synchronize(Token("a", "alice"), Hello("s", 1)),
              FailsWith(StatusCode::kPermissionDenied, "PERMISSION_DENIED"));
  EXPECT_THAT(Synchronize(Nobody(), Hello("s", 1)),
              FailsWith(StatusCode::kUnauthenticated, "NO_IDENTITY"));
  v1::SynchronizeRequest request = Hello("s1", 1);
  request.set_num_free_slots(1);
  const auto leased = Synchronize(w1, request);
  ASSERT_THAT(leased, IsOk());
  ASSERT_EQ(leased->assignments_size(), 1);
  const v1::TaskAssignment& task = leased->assignments(0);
  EXPECT_EQ(task.task(), "tenants/a/jobs/j/tasks/prepare");
  // Everything that is public is known to the other one.
  v1::SynchronizeRequest theft = Hello("s1", 2);
  v1::LeaseReport* report = theft.add_leases();
  report->set_lease_id(task.lease_id());
  report->set_lease_token(task.lease_token());
  report->set_attempt(task.attempt());
  report->set_task(task.task());
  report->mutable_succeeded()->set_result_sha256(std::string(64, 'a'));
  report->mutable_succeeded()->set_num_layers(1);
  EXPECT_THAT(Synchronize(w2, theft),
              FailsWith(StatusCode::kPermissionDenied, "SESSION_NOT_YOURS"));
  theft.set_session_id("s2");
  const auto lost = Synchronize(w2, theft);
  ASSERT_THAT(lost, IsOk());
  EXPECT_EQ(lost->directives(0).action(), v1::LeaseDirective::LOST);
  // A sequence that nobody comes up with by counting.
  EXPECT_THAT(Synchronize(w1, Hello("s1", (int64_t{1} << 20) + 2)),
              FailsWith(StatusCode::kAborted, "STALE_REQUEST"));
  // The worker has noticed nothing, and people see the name that it has proved.
  theft.set_session_id("s1");
  const auto acknowledged = Synchronize(w1, theft);
  ASSERT_THAT(acknowledged, IsOk());
  EXPECT_EQ(acknowledged->directives(0).action(), v1::LeaseDirective::ACKNOWLEDGED);
  v1::ListWorkersResponse workers;
  ASSERT_THAT(Call(Certificate("operator/o"), &v1::AdminService::Stub::ListWorkers,
                   v1::ListWorkersRequest(), &workers),
              IsOk());
  ASSERT_EQ(workers.workers_size(), 2);
  EXPECT_EQ(workers.workers(0).name(), "workers/w1:somebody-else");
  EXPECT_EQ(workers.workers(1).name(), "workers/w2:somebody-else");
}

// R19: false in each way, and true in the end.
TEST_F(AccessCallsTest, T5_AResultThatIsNotThereIsNotBelievedAndItsWorkerIsQuarantined) {
  const std::string objects = dir_.File("objects");
  const auto put = [&](const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path, std::ios::binary) << text;
  };
  const Someone alice = Token("a", "alice"), ops = Certificate("operator/o");
  int num_sessions = 0;
  // A job whose next task a fresh worker has leased.
  struct Leased {
    std::string id, uid;
    Someone worker;
    v1::SynchronizeRequest report;  // of success; an outcome is to be filled in
    v1::TaskAssignment task;
  };
  const auto lease = [&](const std::string& id) {
    Leased leased;
    leased.id = id;
    leased.uid = Get(alice, "jobs/" + id)->uid();
    const std::string name = absl::StrCat("w", ++num_sessions);
    leased.worker = Token("", name, "workers");
    v1::SynchronizeRequest request = Hello(name, 1);
    request.set_num_free_slots(1);
    const auto reply = Synchronize(leased.worker, request);
    EXPECT_THAT(reply, IsOk());
    EXPECT_EQ(reply->assignments_size(), 1);
    leased.task = reply->assignments(0);
    leased.report = Hello(name, 2);
    v1::LeaseReport* report = leased.report.add_leases();
    report->set_lease_id(leased.task.lease_id());
    report->set_lease_token(leased.task.lease_token());
    report->set_attempt(leased.task.attempt());
    report->set_task(leased.task.task());
    return leased;
  };
  const auto is_quarantined = [&](const Leased& leased) {
    v1::ListWorkersResponse workers;
    EXPECT_THAT(Call(ops, &v1::AdminService::Stub::ListWorkers, v1::ListWorkersRequest(), &workers),
                IsOk());
    for (const v1::Worker& worker : workers.workers()) {
      if (worker.session_id() == leased.report.session_id()) {
        return worker.state() == v1::Worker::QUARANTINED;
      }
    }
    return false;
  };
  // Takes the job's task away from the next case.
  const auto end = [&](const Leased& leased) {
    (void)Named(alice, &Jobs::CancelJob, "jobs/" + leased.id);
  };
  const auto is_refused = [&](Leased leased, const v1::TaskOutcome& outcome, const char* why) {
    *leased.report.mutable_leases(0)->mutable_succeeded() = outcome;
    EXPECT_THAT(Synchronize(leased.worker, leased.report), IsOk());
    v1::GetTaskRequest request;
    request.set_name(leased.task.task());
    v1::Task task;
    EXPECT_THAT(Call(alice, &Jobs::GetTask, request, &task), IsOk());
    EXPECT_EQ(task.failures_size(), 1) << why;
    if (task.failures_size() != 1) return;
    EXPECT_EQ(task.failures(0).reason(), "MALFORMED_OUTCOME") << why;
    EXPECT_THAT(task.failures(0).message(), HasSubstr(why));
    EXPECT_TRUE(is_quarantined(leased)) << why;
    end(leased);
  };
  v1::TaskOutcome plan;
  plan.set_num_layers(1);
  plan.set_device("cpu");
  plan.set_result_sha256(std::string(64, 'a'));
  ASSERT_THAT(Create(alice, "no-object"), IsOk());
  is_refused(lease("no-object"), plan, "not in the object store");
  ASSERT_THAT(Create(alice, "empty-object"), IsOk());
  Leased empty = lease("empty-object");
  put(absl::StrCat(objects, "/work/", empty.uid, "/objects/", plan.result_sha256()), "");
  is_refused(empty, plan, "empty");

  // A job whose layer is done: its artifact is what is lied about.
  const auto finalize = [&](const std::string& id) {
    EXPECT_THAT(Create(alice, id), IsOk());
    for (int i = 0; i < 2; ++i) {
      Leased leased = lease(id);
      put(absl::StrCat(objects, "/work/", leased.uid, "/objects/", plan.result_sha256()), "x");
      *leased.report.mutable_leases(0)->mutable_succeeded() = plan;
      const auto reply = Synchronize(leased.worker, leased.report);
      EXPECT_EQ(reply->directives(0).action(), v1::LeaseDirective::ACKNOWLEDGED);
      EXPECT_FALSE(is_quarantined(leased));
    }
    Leased leased = lease(id);
    EXPECT_EQ(leased.task.kind(), v1::Task::FINALIZE);
    return leased;
  };
  const std::string manifest = SampleManifest().ToJson();
  int64_t size_bytes = 0;
  for (const ManifestFile& file : SampleManifest().files) {
    size_bytes += static_cast<int64_t>(file.size_bytes);
  }
  const auto honest = [&](const Leased& leased, const std::string& text) {
    const std::string uri = leased.task.spec().output_uri();
    put(uri.substr(7) + "/manifest.json", text);
    v1::TaskOutcome outcome;
    outcome.set_result_sha256(Sha256Hex(text));
    outcome.mutable_artifact()->set_uri(uri);
    outcome.mutable_artifact()->set_manifest_sha256(Sha256Hex(text));
    outcome.mutable_artifact()->set_size_bytes(size_bytes);
    outcome.mutable_report()->set_average_bits(3.5);
    return outcome;
  };
  struct Lie {
    const char* why;
    std::function<void(v1::TaskOutcome*)> tell;
  };
  const Lie lies[] = {
      {"not where the job's was to go",
       [](auto* o) { o->mutable_artifact()->set_uri("file:///etc"); }},
      {"another digest",
       [](auto* o) {
         o->set_result_sha256(std::string(64, 'b'));
         o->mutable_artifact()->set_manifest_sha256(std::string(64, 'b'));
       }},
      {"not its result's",
       [](auto* o) { o->mutable_artifact()->set_manifest_sha256(std::string(64, 'b')); }},
      {"another size", [](auto* o) { o->mutable_artifact()->set_size_bytes(7); }},
      {"negative", [](auto* o) { o->mutable_artifact()->set_size_bytes(-5); }},
      {"names no artifact", [](auto* o) { o->clear_artifact(); }},
      {"average_bits", [](auto* o) { o->mutable_report()->set_average_bits(-3); }},
      {"perplexity", [](auto* o) { o->mutable_report()->set_perplexity_after(std::nan("")); }},
      {"perplexity", [](auto* o) { o->mutable_report()->set_perplexity_before(-1); }},
      {"layer", [](auto* o) { o->mutable_report()->add_layers()->set_final_loss(std::nan("")); }},
      {"warning", [](auto* o) { o->mutable_report()->add_warnings(std::string(5000, 'w')); }},
      {"64 hex digits", [](auto* o) { o->set_result_sha256("../../etc"); }},
  };
  int num_lies = 0;
  for (const Lie& lie : lies) {
    Leased leased = finalize(absl::StrCat("lie-", ++num_lies));
    v1::TaskOutcome outcome = honest(leased, manifest);
    lie.tell(&outcome);
    is_refused(leased, outcome, lie.why);
  }
  Leased none = finalize("no-manifest");
  v1::TaskOutcome outcome = honest(none, manifest);
  std::filesystem::remove(none.task.spec().output_uri().substr(7) + "/manifest.json");
  is_refused(none, outcome, "has no manifest");
  Leased garbage = finalize("garbage");
  is_refused(garbage, honest(garbage, "{}"), "manifest is none");

  Leased true_one = finalize("true");
  *true_one.report.mutable_leases(0)->mutable_succeeded() = honest(true_one, manifest);
  EXPECT_THAT(Synchronize(true_one.worker, true_one.report), IsOk());
  EXPECT_EQ(Get(alice, "jobs/true")->state(), v1::Job::SUCCEEDED);
  EXPECT_FALSE(is_quarantined(true_one));
}

// Every field of a job's settings that names a place is one that the policy is asked about.
TEST(SpecLocationsTest, T3_NoFieldThatNamesAPlaceIsForgotten) {
  v1::QuantizationSpec spec;
  std::set<std::string> fields;
  const std::function<void(google::protobuf::Message*)> fill =
      [&](google::protobuf::Message* message) {
        const auto* descriptor = message->GetDescriptor();
        const auto* reflection = message->GetReflection();
        for (int i = 0; i < descriptor->field_count(); ++i) {
          const auto* field = descriptor->field(i);
          if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) {
            fill(field->is_repeated() ? reflection->AddMessage(message, field)
                                      : reflection->MutableMessage(message, field));
          } else if (absl::EndsWith(field->name(), "uri")) {
            ASSERT_FALSE(field->is_repeated()) << field->full_name();
            reflection->SetString(message, field, std::string(field->full_name()));
            fields.insert(std::string(field->full_name()));
          }
        }
      };
  fill(&spec);
  EXPECT_GE(fields.size(), 6u);
  for (const SpecLocation& location : LocationsOf(spec)) fields.erase(location.uri);
  EXPECT_THAT(fields, ::testing::IsEmpty());
}

// R11, R13: what the worker checks again, and whose rights it takes for it; R17: the token.
TEST_F(AccessCallsTest, AnAssignmentSaysWhatItsTenantMayNameAndNoListSaysItsToken) {
  const Someone mallory = Token("m", "mallory"), ops = Certificate("operator/o");
  ASSERT_THAT(Create(mallory, "j"), IsOk());
  v1::SynchronizeRequest request = Hello("s1", 1);
  request.set_num_free_slots(1);
  const auto reply = Synchronize(Certificate("worker/w1"), request);
  ASSERT_THAT(reply, IsOk());
  ASSERT_EQ(reply->assignments_size(), 1);
  const v1::TaskAssignment& task = reply->assignments(0);
  EXPECT_EQ(task.worker(), "worker/w1");
  EXPECT_EQ(task.lease_token().size(), 16u);
  ASSERT_TRUE(task.data_is_confined());
  const std::string objects = "file://" + dir_.File("objects");
  EXPECT_EQ(task.withheld_uri_prefixes(0), objects);
  std::map<std::string, std::string> credentials;
  std::set<std::string> outputs, models;
  for (const v1::DataGrant& grant : task.data()) {
    credentials[grant.uri_prefix()] = grant.credentials();
    for (const int purpose : grant.purposes()) {
      if (purpose == v1::DataGrant::OUTPUT) outputs.insert(grant.uri_prefix());
      if (purpose == v1::DataGrant::MODEL) models.insert(grant.uri_prefix());
    }
  }
  const std::string own = objects + "/tenants/m";
  EXPECT_EQ(models,
            (std::set<std::string>{own, "file:///models", "file:///data", "s3://models/m"}));
  EXPECT_EQ(outputs, (std::set<std::string>{own, "s3://results/m", objects + "/artifacts/j"}));
  EXPECT_EQ(credentials[own], "");
  EXPECT_EQ(credentials["file:///models"], "");
  EXPECT_EQ(credentials["s3://models/m"], "file:mallory");
  EXPECT_EQ(credentials["s3://results/m"], "file:mallory");
  // Whatever people may ask, and whatever is written down.
  std::string seen = Get(mallory, "jobs/j")->SerializeAsString();
  v1::ListWorkersResponse workers;
  EXPECT_THAT(Call(ops, &v1::AdminService::Stub::ListWorkers, v1::ListWorkersRequest(), &workers),
              IsOk());
  v1::GetTaskRequest get;
  get.set_name("jobs/j/tasks/prepare");
  v1::Task told;
  EXPECT_THAT(Call(mallory, &Jobs::GetTask, get, &told), IsOk());
  audit_->Flush();
  for (const char* file : {"audit.log", "state.sqlite", "state.sqlite-wal"}) {
    std::ifstream stream(dir_.File(file), std::ios::binary);
    seen += std::string(std::istreambuf_iterator<char>(stream), {});
  }
  seen += workers.SerializeAsString() + told.SerializeAsString();
  EXPECT_THAT(seen, HasSubstr("prepare"));
  EXPECT_EQ(seen.find(task.lease_token()), std::string::npos);
}

// R18.
TEST_F(AccessCallsTest, AWorkerIsWhatThePolicySaysAndServesWhomItSays) {
  WritePolicy({{{"principals", {"worker/*"}}, {"role", "worker"}}},
              {{"w1",
                {{"devices", {"cpu"}},
                 {"labels", {{"zone", "a"}}},
                 {"max_memory_bytes", 1 << 20},
                 {"max_slots", 1}}},
               {"w2", {{"devices", {"cuda"}}}}});
  const Someone alice = Token("a", "alice"), ops = Certificate("operator/o");
  for (const char* id : {"1", "2"}) ASSERT_THAT(Create(alice, id), IsOk());
  const Someone w2 = Certificate("worker/w2");
  absl::Status refused;
  for (int i = 1; refused.ok() && i < 1000; ++i) {  // until the policy is in use
    refused = Synchronize(w2, Hello("s2", i)).status();
    absl::SleepFor(absl::Milliseconds(5));
  }
  EXPECT_THAT(refused, FailsWith(StatusCode::kPermissionDenied, "WORKER_NOT_ALLOWED",
                                 HasSubstr("on cuda, not on cpu")));
  v1::SynchronizeRequest request = Hello("s1", 1);
  v1::WorkerCapabilities* says = request.mutable_capabilities();
  says->set_memory_bytes(int64_t{1} << 40);
  says->set_num_slots(8);
  (*says->mutable_labels())["zone"] = "b";
  (*says->mutable_labels())["secret"] = "yes";
  request.set_num_free_slots(8);
  const auto reply = Synchronize(Certificate("worker/w1"), request);
  ASSERT_THAT(reply, IsOk());
  EXPECT_EQ(reply->assignments_size(), 1) << "max_slots";
  v1::ListWorkersResponse workers;
  EXPECT_THAT(Call(ops, &v1::AdminService::Stub::ListWorkers, v1::ListWorkersRequest(), &workers),
              IsOk());
  for (const v1::Worker& worker : workers.workers()) {
    if (worker.session_id() != "s1") continue;
    EXPECT_EQ(worker.capabilities().memory_bytes(), 1 << 20);
    EXPECT_EQ(worker.capabilities().num_slots(), 1);
    ASSERT_EQ(worker.capabilities().labels_size(), 1);
    EXPECT_EQ(worker.capabilities().labels().at("zone"), "a");
  }
}

TEST_F(AccessCallsTest, AWorkerOfOneTenantIsGivenNoOthersTasks) {
  std::string text;
  {
    std::ifstream file(dir_.File("policy.json"));
    json policy = json::parse(file);
    for (json& binding : policy["bindings"]) {
      if (binding["role"] == "worker") binding["tenants"] = {"m"};
    }
    text = policy.dump();
  }
  std::ofstream(dir_.File("policy.new")) << text;
  std::rename(dir_.File("policy.new").c_str(), dir_.File("policy.json").c_str());
  ASSERT_THAT(Create(Token("a", "alice"), "foreign"), IsOk());
  const Someone worker = Certificate("worker/w");
  // Given at first perhaps, by the policy before; then not any more.
  absl::SleepFor(absl::Milliseconds(200));
  v1::SynchronizeRequest request = Hello("s", 1);
  request.set_num_free_slots(1);
  auto reply = Synchronize(worker, request);
  ASSERT_THAT(reply, IsOk());
  EXPECT_EQ(reply->assignments_size(), 0);
  ASSERT_THAT(Create(Token("m", "mallory"), "hers"), IsOk());
  request.set_sequence(2);
  reply = Synchronize(worker, request);
  ASSERT_THAT(reply, IsOk());
  ASSERT_EQ(reply->assignments_size(), 1);
  EXPECT_EQ(reply->assignments(0).task(), "tenants/m/jobs/hers/tasks/prepare");
}

// R19: of a worker whose key is known nothing counts that it has not signed.
TEST_F(AccessCallsTest, T5_AResultThatItsWorkerHasNotSignedIsNotBelieved) {
  const SigningKey key = SigningKey::Generate();
  WritePolicy({}, {{"w1", {{"signing_keys", {key.verifying_key().Base64()}}}}});
  absl::SleepFor(absl::Milliseconds(200));
  const Someone alice = Token("a", "alice"), w1 = Certificate("worker/w1");
  const auto report = [&](const std::string& id,
                          const std::function<std::string(const v1::TaskAssignment&)>& sign) {
    EXPECT_THAT(Create(alice, id), IsOk());
    const std::string session = "session of " + id;
    v1::SynchronizeRequest request = Hello(session, 1);
    request.set_num_free_slots(1);
    const auto leased = Synchronize(w1, request);
    EXPECT_EQ(leased->assignments_size(), 1);
    const v1::TaskAssignment& task = leased->assignments(0);
    request = Hello(session, 2);
    v1::LeaseReport* lease = request.add_leases();
    lease->set_lease_id(task.lease_id());
    lease->set_lease_token(task.lease_token());
    lease->set_attempt(task.attempt());
    lease->set_task(task.task());
    v1::TaskOutcome* outcome = lease->mutable_succeeded();
    outcome->set_result_sha256(std::string(64, 'a'));
    outcome->set_num_layers(1);
    outcome->set_device("cpu");
    outcome->set_signature(sign(task));
    const std::string object = absl::StrCat(task.work_uri().substr(7), "/objects/");
    std::filesystem::create_directories(object);
    std::ofstream(object + std::string(64, 'a')) << "plan";
    EXPECT_THAT(Synchronize(w1, request), IsOk());
    v1::GetTaskRequest get;
    get.set_name(task.task());
    v1::Task told;
    EXPECT_THAT(Call(alice, &Jobs::GetTask, get, &told), IsOk());
    (void)Named(alice, &Jobs::CancelJob, "jobs/" + id);
    return told.state() == v1::Task::SUCCEEDED ? "" : told.failures(0).message();
  };
  const std::string result(64, 'a');
  EXPECT_THAT(report("unsigned", [](const auto&) { return ""; }), HasSubstr("it is not signed"));
  EXPECT_THAT(report("by-another",
                     [&](const auto& task) {
                       return SigningKey::Generate().Sign(
                           ResultMessage("worker/w1", task.lease_id(), result));
                     }),
              HasSubstr("none of the worker's keys"));
  EXPECT_THAT(report("of-another-lease",
                     [&](const auto& task) {
                       return key.Sign(ResultMessage("worker/w1", task.lease_id() + "x", result));
                     }),
              HasSubstr("none of the worker's keys"));
  EXPECT_EQ(report("good",
                   [&](const auto& task) {
                     return key.Sign(ResultMessage("worker/w1", task.lease_id(), result));
                   }),
            "");
}

}  // namespace
}  // namespace uniquanf::server
