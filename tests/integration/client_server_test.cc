// The client library against the real server program, killed and restarted under it. Tasks are
// answered by a worker of this test's own, so that no model is needed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/include/uniquanf/client.h"
#include "common/base/digest.h"
#include "common/base/status.h"
#include "common/base/version.h"
#include "common/rpc/channel.h"
#include "tests/support/child_process.h"
#include "uniquanf/v1/worker_service.grpc.pb.h"

namespace uniquanf {
namespace {

namespace fs = std::filesystem;

class ServerProgram {
 public:
  explicit ServerProgram(const fs::path& directory) : directory_(directory) {}

  // On the first call at a free port, afterwards at the same.
  void Start() {
    const fs::path ready = directory_ / "ready";
    fs::remove(ready);
    process_ = std::make_unique<ChildProcess>(
        UNIQUANF_SERVER_PROGRAM,
        std::vector<std::string>{"--data-dir=" + directory_.string(), "--listen=" + address_,
                                 "--metrics-listen=", "--ready-file=" + ready.string(),
                                 "--lease-duration=2s"},
        std::map<std::string, std::string>{}, (directory_ / "server.log").string());
    // The program says itself when it serves; it is only waited for, up to the test's limit.
    ASSERT_TRUE(
        WaitUntil([&] { return fs::exists(ready) || !process_->running(); }, absl::Seconds(60)));
    ASSERT_TRUE(process_->running()) << "the server ended at its start:\n" << process_->Log();
    std::ifstream(ready) >> address_;
  }
  void Kill() { process_.reset(); }
  const std::string& address() const { return address_; }

 private:
  const fs::path directory_;
  std::string address_ = "127.0.0.1:0";
  std::unique_ptr<ChildProcess> process_;
};

class ClientServerTest : public ::testing::Test {
 protected:
  ClientServerTest()
      : directory_(fs::path(::testing::TempDir()) /
                   absl::StrCat("client-server-", getpid(), "-",
                                ::testing::UnitTest::GetInstance()->current_test_info()->name())),
        server_(directory_) {
    fs::remove_all(directory_);
    fs::create_directories(directory_);
  }
  ~ClientServerTest() override {
    server_.Kill();
    fs::remove_all(directory_);
  }
  void SetUp() override {
    server_.Start();
    ClientOptions options;
    options.server = server_.address();
    auto client = Client::Connect(options);
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }
  SubmitOptions Submission(const std::string& id) {
    SubmitOptions options;
    options.spec.model_uri = "file:///models/tiny";
    options.spec.calibration_uri = "file:///calibration.safetensors";
    options.spec.bits = 3;
    options.job_id = id;
    options.unchecked = true;  // no such model is there, nor is it needed
    return options;
  }

  const fs::path directory_;
  ServerProgram server_;
  std::unique_ptr<Client> client_;
};

TEST_F(ClientServerTest, JobGoesThroughEveryCallThatNeedsNoWorker) {
  const auto job = client_->SubmitJob(Submission("one"));
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->name, "jobs/one");
  EXPECT_EQ(job->state, JobState::kQueued);
  EXPECT_EQ(job->spec.bits, 3);
  EXPECT_EQ(ErrorReason(client_->SubmitJob(Submission("one")).status()), "JOB_EXISTS");
  EXPECT_EQ(ErrorReason(client_->GetJob("two").status()), "JOB_NOT_FOUND");
  EXPECT_EQ(client_->PauseJob("one")->state, JobState::kPaused);
  EXPECT_EQ(client_->ResumeJob("one")->state, JobState::kQueued);
  EXPECT_EQ(ErrorReason(client_->ResumeJob("one").status()), "JOB_NOT_PAUSED");
  EXPECT_EQ(ErrorReason(client_->DeleteJob("one")), "JOB_NOT_FINAL");
  const auto tasks = client_->ListTasks("one");
  ASSERT_TRUE(tasks.ok());
  ASSERT_EQ(tasks->size(), 1u);
  EXPECT_EQ((*tasks)[0].kind, TaskKind::kPrepare);
  EXPECT_EQ(client_->CancelJob("one")->state, JobState::kCancelled);
  EXPECT_EQ(client_->WatchJob("one", nullptr)->state, JobState::kCancelled);
  EXPECT_EQ(client_->RetryJob("one")->state, JobState::kQueued);
  EXPECT_EQ(client_->CancelJob("one")->state, JobState::kCancelled);
  EXPECT_TRUE(client_->DeleteJob("one").ok());
  EXPECT_EQ(ErrorReason(client_->DeleteJob("one")), "JOB_NOT_FOUND");
  EXPECT_TRUE(client_->DeleteJob("one", /*allow_missing=*/true).ok());
  EXPECT_TRUE(client_->ListWorkers()->empty());
  EXPECT_EQ(ErrorReason(client_->DrainWorker("none").status()), "WORKER_NOT_FOUND");
  EXPECT_TRUE(client_->GetServerInfo()->active);
}

TEST_F(ClientServerTest, RepeatedSubmissionMakesOneJob) {
  SubmitOptions options = Submission("");
  options.request_id = "only-once";
  const auto first = client_->SubmitJob(options);
  const auto second = client_->SubmitJob(options);
  ASSERT_TRUE(first.ok() && second.ok()) << second.status();
  EXPECT_EQ(first->uid, second->uid);
  options.spec.bits = 2;
  EXPECT_EQ(ErrorReason(client_->SubmitJob(options).status()), "REQUEST_ID_REUSED");
}

TEST_F(ClientServerTest, InvalidSpecsAreRefusedByName) {
  SubmitOptions options = Submission("bad");
  options.spec.bits = 9;
  const auto job = client_->SubmitJob(options);
  EXPECT_EQ(ErrorReason(job.status()), "INVALID_SPEC");
  EXPECT_THAT(std::string(job.status().message()), ::testing::HasSubstr("bits"));
}

TEST_F(ClientServerTest, IteratorSeesEveryJobOnceAcrossPages) {
  for (int i = 0; i < 7; ++i) {
    SubmitOptions options = Submission(absl::StrCat("job-", i));
    if (i % 2 == 0) options.labels["parity"] = "even";
    ASSERT_TRUE(client_->SubmitJob(options).ok());
  }
  const auto names = [&](const ListJobsOptions& options) {
    std::vector<std::string> out;
    JobIterator iterator = client_->IterateJobs(options);
    while (true) {
      auto job = iterator.Next();
      EXPECT_TRUE(job.ok()) << job.status();
      if (!job.ok() || !job->has_value()) return out;
      out.push_back((*job)->name);
    }
  };
  ListJobsOptions options;
  options.page_size = 3;
  options.order_by = "name";
  EXPECT_EQ(names(options).size(), 7u);
  options.filter = "labels.parity=\"even\"";
  EXPECT_THAT(names(options),
              ::testing::ElementsAre("jobs/job-0", "jobs/job-2", "jobs/job-4", "jobs/job-6"));
  options.filter = "parity=even";
  EXPECT_EQ(ErrorReason(client_->ListJobs(options).status()), "INVALID_FILTER");
}

// Takes the job's first task and reports that the input is bad.
void FailFirstTask(const std::string& address) {
  const auto channel = MakeChannel(address);
  ASSERT_TRUE(channel.ok());
  const auto stub = v1::WorkerService::NewStub(*channel);
  v1::SynchronizeRequest request;
  request.set_session_id("session-1");
  request.set_worker("workers/test");
  request.set_protocol_version(kProtocolVersion);
  request.set_software_version(kSoftwareVersion);
  request.mutable_capabilities()->set_device("cpu");
  request.mutable_capabilities()->set_memory_bytes(int64_t{1} << 40);
  request.mutable_capabilities()->set_num_slots(1);
  request.set_num_free_slots(1);
  request.mutable_max_wait()->set_seconds(5);
  for (int i = 1; i < 100; ++i) {
    request.set_sequence(i);
    v1::SynchronizeResponse response;
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    const grpc::Status status = stub->Synchronize(&context, request, &response);
    // The channel may share a connection whose server was killed; a worker calls again.
    if (status.error_code() == grpc::StatusCode::UNAVAILABLE) continue;
    ASSERT_TRUE(status.ok()) << status.error_message();
    for (const v1::LeaseDirective& directive : response.directives()) {
      if (directive.action() == v1::LeaseDirective::ACKNOWLEDGED) return;
    }
    for (const v1::TaskAssignment& assignment : response.assignments()) {
      v1::LeaseReport* lease = request.add_leases();
      lease->set_lease_id(assignment.lease_id());
      lease->set_lease_token(assignment.lease_token());
      lease->set_attempt(assignment.attempt());
      lease->set_task(assignment.task());
      v1::TaskFailure* failure = lease->mutable_failed();
      failure->set_failure_class(v1::INVALID_INPUT);
      failure->set_reason("TENSOR_SHAPE");
      failure->set_message("lm_head.weight has another shape");
      request.set_num_free_slots(0);
      request.mutable_max_wait()->set_seconds(0);
    }
  }
  FAIL() << "no task came";
}

TEST_F(ClientServerTest, WatchSurvivesKillsOfTheServerAndSeesTheFinalState) {
  ASSERT_TRUE(client_->SubmitJob(Submission("w")).ok());
  JobWatcher watcher = client_->WatchJob("w");
  const auto first = watcher.Next();
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ((*first)->job.state, JobState::kQueued);
  int64_t version = (*first)->job.version;
  for (int i = 0; i < 2; ++i) {
    server_.Kill();
    server_.Start();
  }
  std::thread worker([&] { FailFirstTask(server_.address()); });
  Job last;
  while (true) {
    const auto update = watcher.Next();
    EXPECT_TRUE(update.ok()) << update.status();
    if (!update.ok() || !update->has_value()) break;
    last = (*update)->job;
    EXPECT_GT(last.version, version);
    version = last.version;
  }
  worker.join();
  EXPECT_EQ(last.state, JobState::kFailed);
  ASSERT_TRUE(last.error.has_value());
  EXPECT_EQ(last.error->reason, "TENSOR_SHAPE");
  const auto tasks = client_->ListTasks("w");
  ASSERT_TRUE(tasks.ok()) << tasks.status();
  ASSERT_FALSE(tasks->empty());
  ASSERT_FALSE((*tasks)[0].failures.empty());
  EXPECT_EQ((*tasks)[0].failures.back().failure_class, FailureClass::kInvalidInput);
  EXPECT_EQ(client_->ListWorkers()->size(), 1u);
  EXPECT_EQ(client_->DrainWorker("test")->state, WorkerState::kDraining);
  EXPECT_EQ(client_->UndrainWorker("workers/test")->state, WorkerState::kReady);
}

}  // namespace
}  // namespace uniquanf
