#include "client/include/uniquanf/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "common/base/status.h"
#include "tests/unit/client/fake_service.h"

namespace uniquanf {
namespace {

using ::testing::ElementsAre;
using testing::FakeJob;
using testing::FakeServer;
using ::testing::HasSubstr;
using testing::WatchWriter;

class ClientTest : public ::testing::Test {
 protected:
  ClientOptions Options() {
    ClientOptions options;
    options.server = server_.address();
    options.retry.initial_backoff = absl::Milliseconds(1);
    options.retry.max_backoff = absl::Milliseconds(20);
    return options;
  }
  std::unique_ptr<Client> Connect(const ClientOptions& options) {
    auto client = Client::Connect(options);
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }
  std::unique_ptr<Client> Connect() { return Connect(Options()); }

  FakeServer server_;
};

TEST_F(ClientTest, UnavailableIsRetriedUntilItWorks) {
  std::atomic<int> calls{0};
  server_.jobs.get = [&](const v1::GetJobRequest& request, v1::Job* reply) {
    if (++calls < 3) return testing::Unavailable();
    *reply = FakeJob(request.name(), 7, v1::Job::RUNNING);
    return grpc::Status::OK;
  };
  const auto job = Connect()->GetJob("a");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->name, "jobs/a");
  EXPECT_EQ(job->state, JobState::kRunning);
  EXPECT_EQ(calls, 3);
}

// So a call looks that a server which ends has cut; the server itself gives a reason.
TEST_F(ClientTest, ACallThatTheServersEndCutIsTriedAgain) {
  std::atomic<int> calls{0};
  server_.jobs.get = [&](const v1::GetJobRequest& request, v1::Job* reply) {
    if (++calls < 2) return grpc::Status(grpc::StatusCode::CANCELLED, "CANCELLED");
    *reply = FakeJob(request.name(), 7, v1::Job::RUNNING);
    return grpc::Status::OK;
  };
  EXPECT_TRUE(Connect()->GetJob("a").ok());
  EXPECT_EQ(calls, 2);
}

TEST_F(ClientTest, RetriesEndAfterTheAttemptsAndSayWhereTheServerWasSought) {
  std::atomic<int> calls{0};
  server_.jobs.get = [&](const v1::GetJobRequest&, v1::Job*) {
    ++calls;
    return testing::Unavailable();
  };
  const auto job = Connect()->GetJob("a");
  EXPECT_EQ(calls, 4);
  EXPECT_EQ(job.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ErrorReason(job.status()), "SERVER_UNREACHABLE");
  EXPECT_THAT(std::string(job.status().message()), HasSubstr(server_.address()));
}

TEST_F(ClientTest, NothingButUnavailableIsRetried) {
  for (int code = 1; code <= 16; ++code) {
    if (code == grpc::StatusCode::UNAVAILABLE) continue;
    std::atomic<int> calls{0};
    server_.jobs.get = [&](const v1::GetJobRequest&, v1::Job*) {
      ++calls;
      return ToGrpcStatus(MakeError(static_cast<absl::StatusCode>(code), "WHY", "because"));
    };
    const auto job = Connect()->GetJob("a");
    EXPECT_EQ(static_cast<int>(job.status().code()), code);
    EXPECT_EQ(ErrorReason(job.status()), "WHY");
    EXPECT_EQ(calls, 1) << "code " << code;
  }
}

TEST_F(ClientTest, DeadlineCoversRetries) {
  ClientOptions options = Options();
  options.call_timeout = absl::Milliseconds(50);
  options.retry.max_attempts = 1000000;
  server_.jobs.get = [](const v1::GetJobRequest&, v1::Job*) { return testing::Unavailable(); };
  const auto job = Connect(options)->GetJob("a");
  EXPECT_FALSE(job.ok());
}

TEST_F(ClientTest, SilentServerIsNoAnswer) {
  absl::Notification release;
  server_.jobs.get = [&](const v1::GetJobRequest&, v1::Job*) {
    release.WaitForNotification();
    return grpc::Status::OK;
  };
  ClientOptions options = Options();
  options.call_timeout = absl::Milliseconds(50);
  const auto job = Connect(options)->GetJob("a");
  release.Notify();
  server_.Stop();  // the call may reach the handler, which uses `release`, only now
  EXPECT_EQ(job.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ErrorReason(job.status()), "NO_ANSWER");
}

TEST_F(ClientTest, RepeatedSubmissionCarriesTheSameRequestIdAndOtherSubmissionsAnother) {
  std::vector<std::string> ids;
  server_.jobs.create = [&](const v1::CreateJobRequest& request, v1::Job* reply) {
    ids.push_back(request.request_id());
    if (ids.size() == 1) return testing::Unavailable();
    *reply = FakeJob("jobs/x", 1, v1::Job::QUEUED);
    *reply->mutable_spec() = request.job().spec();
    return grpc::Status::OK;
  };
  auto client = Connect();
  SubmitOptions options;
  options.spec.model_uri = "file:///m";
  options.spec.bits = 3;
  const auto job = client->SubmitJob(options);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->spec.ToJson(), options.spec.ToJson());
  ASSERT_TRUE(client->SubmitJob(options).ok());
  ASSERT_EQ(ids.size(), 3u);
  EXPECT_FALSE(ids[0].empty());
  EXPECT_EQ(ids[0], ids[1]);
  EXPECT_NE(ids[1], ids[2]);
}

TEST_F(ClientTest, SubmissionCarriesEverythingThatWasAskedFor) {
  v1::CreateJobRequest seen;
  server_.jobs.create = [&](const v1::CreateJobRequest& request, v1::Job* reply) {
    seen = request;
    *reply = request.job();
    return grpc::Status::OK;
  };
  SubmitOptions options;
  options.job_id = "my-job";
  options.request_id = "once";
  options.tenant = "team";
  options.priority = -3;
  options.labels = {{"k", "v"}};
  options.deadline = absl::FromUnixSeconds(2000000000);
  options.time_to_live = absl::Hours(2);
  options.device = "cpu";
  options.validate_only = true;
  const auto job = Connect()->SubmitJob(options);
  ASSERT_TRUE(job.ok());
  EXPECT_EQ(seen.job_id(), "my-job");
  EXPECT_EQ(seen.request_id(), "once");
  EXPECT_TRUE(seen.validate_only());
  EXPECT_EQ(job->tenant, "team");
  EXPECT_EQ(job->priority, -3);
  EXPECT_EQ(job->labels, options.labels);
  EXPECT_EQ(job->deadline, options.deadline);
  EXPECT_EQ(job->time_to_live, options.time_to_live);
  EXPECT_EQ(job->device, "cpu");
}

TEST_F(ClientTest, LostReplyOfARetryIsNotAnError) {
  int calls = 0;
  server_.jobs.retry = [&](const v1::RetryJobRequest&, v1::Job*) {
    // The first call did its work, but its reply got lost.
    if (++calls == 1) return testing::Unavailable();
    return ToGrpcStatus(FailedPrecondition("JOB_NOT_RETRYABLE", "it is RUNNING"));
  };
  server_.jobs.get = [&](const v1::GetJobRequest& request, v1::Job* reply) {
    *reply = FakeJob(request.name(), 9, v1::Job::RUNNING);
    return grpc::Status::OK;
  };
  const auto job = Connect()->RetryJob("x");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->state, JobState::kRunning);
  // But a refusal of the first attempt is one.
  calls = 1;
  EXPECT_EQ(ErrorReason(Connect()->RetryJob("x").status()), "JOB_NOT_RETRYABLE");
}

TEST_F(ClientTest, LostReplyOfADeletionIsNotAnError) {
  int calls = 0;
  server_.jobs.remove = [&](const v1::DeleteJobRequest&, google::protobuf::Empty*) {
    if (++calls == 1) return testing::Unavailable();
    return ToGrpcStatus(NotFound("JOB_NOT_FOUND", "none"));
  };
  EXPECT_TRUE(Connect()->DeleteJob("x").ok());
  EXPECT_EQ(ErrorReason(Connect()->DeleteJob("x")), "JOB_NOT_FOUND");
}

TEST_F(ClientTest, IteratorReadsAllPagesAlsoEmptyOnes) {
  server_.jobs.list = [](const v1::ListJobsRequest& request, v1::ListJobsResponse* reply) {
    EXPECT_EQ(request.filter(), "state=RUNNING");
    if (request.page_token().empty()) {
      *reply->add_jobs() = FakeJob("jobs/1", 1, v1::Job::RUNNING);
      reply->set_next_page_token("p2");
    } else if (request.page_token() == "p2") {
      reply->set_next_page_token("p3");
    } else {
      *reply->add_jobs() = FakeJob("jobs/2", 1, v1::Job::RUNNING);
    }
    return grpc::Status::OK;
  };
  ListJobsOptions options;
  options.filter = "state=RUNNING";
  JobIterator iterator = Connect()->IterateJobs(options);  // outlives its client
  std::vector<std::string> names;
  while (true) {
    const auto job = iterator.Next();
    ASSERT_TRUE(job.ok()) << job.status();
    if (!job->has_value()) break;
    names.push_back((*job)->name);
  }
  EXPECT_THAT(names, ElementsAre("jobs/1", "jobs/2"));
}

TEST_F(ClientTest, TraceContextTravelsWithEveryCall) {
  server_.jobs.get = [](const v1::GetJobRequest& request, v1::Job* reply) {
    *reply = FakeJob(request.name(), 1, v1::Job::RUNNING);
    return grpc::Status::OK;
  };
  ClientOptions options = Options();
  options.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  ASSERT_TRUE(Connect(options)->GetJob("a").ok());
  EXPECT_EQ(server_.jobs.traceparent, options.traceparent);
}

TEST_F(ClientTest, OneClientServesManyThreads) {
  server_.jobs.get = [](const v1::GetJobRequest& request, v1::Job* reply) {
    *reply = FakeJob(request.name(), 1, v1::Job::RUNNING);
    return grpc::Status::OK;
  };
  auto client = Connect();
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) good += client->GetJob("a").ok();
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(good, 160);
}

v1::WatchJobResponse Change(int64_t version, v1::Job::State state) {
  v1::WatchJobResponse response;
  *response.mutable_job() = FakeJob("jobs/w", version, state);
  return response;
}

v1::WatchJobResponse WithTask(v1::WatchJobResponse response, const std::string& name,
                              v1::Task::State state) {
  v1::Task* task = response.add_tasks();
  task->set_name(name);
  task->set_state(state);
  return response;
}

grpc::Status FakeGet(const v1::GetJobRequest& request, v1::Job* reply) {
  *reply = FakeJob(request.name(), 1, v1::Job::RUNNING);
  return grpc::Status::OK;
}

TEST_F(ClientTest, WatchResumesAfterTheLastVersionWhateverBreaksIt) {
  server_.jobs.get = FakeGet;
  std::vector<int64_t> after;
  server_.jobs.watch = [&](grpc::ServerContext*, const v1::WatchJobRequest& request,
                           WatchWriter* writer) {
    after.push_back(request.after_version());
    switch (after.size()) {
      case 1:
        writer->Write(Change(3, v1::Job::QUEUED));
        writer->Write(Change(4, v1::Job::RUNNING));
        return testing::Unavailable();
      case 2:
        return grpc::Status::CANCELLED;  // cut by a server that ends
      case 3:
        writer->Write(Change(4, v1::Job::RUNNING));  // repeats what is known
        writer->Write(Change(6, v1::Job::RUNNING));
        return grpc::Status::OK;  // ended although the job is not: going away
      default:
        writer->Write(Change(9, v1::Job::SUCCEEDED));
        return grpc::Status::OK;
    }
  };
  std::vector<int64_t> versions;
  const auto job = Connect()->WatchJob(
      "w", [&](const JobUpdate& update) { versions.push_back(update.job.version); });
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->state, JobState::kSucceeded);
  EXPECT_THAT(versions, ElementsAre(3, 4, 6, 9));
  EXPECT_THAT(after, ElementsAre(0, 4, 4, 6));
}

TEST_F(ClientTest, WatchSurvivesARestartOfTheServer) {
  const std::string address = "unix:" + ::testing::TempDir() + "/watch-restart.sock";
  server_.Stop();
  server_.jobs.get = FakeGet;
  absl::Notification first_sent;
  server_.jobs.watch = [&](grpc::ServerContext* context, const v1::WatchJobRequest& request,
                           WatchWriter* writer) {
    if (request.after_version() == 0) {
      writer->Write(Change(1, v1::Job::RUNNING));
      first_sent.Notify();
      testing::WaitUntilCancelled(context);
      return grpc::Status::CANCELLED;
    }
    EXPECT_EQ(request.after_version(), 1);
    writer->Write(Change(5, v1::Job::FAILED));
    return grpc::Status::OK;
  };
  server_.Start(address);
  auto client = Connect();
  JobWatcher watcher = client->WatchJob("w");
  const auto first = watcher.Next();
  ASSERT_TRUE(first.ok()) << first.status();
  first_sent.WaitForNotification();
  server_.Stop();
  server_.Start(address);
  const auto second = watcher.Next();
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ((*second)->job.state, JobState::kFailed);
  const auto end = watcher.Next();
  ASSERT_TRUE(end.ok());
  EXPECT_FALSE(end->has_value());
}

TEST_F(ClientTest, WatchMergesTheTasksThatChanged) {
  server_.jobs.watch = [&](grpc::ServerContext*, const v1::WatchJobRequest&, WatchWriter* writer) {
    writer->Write(WithTask(WithTask(Change(1, v1::Job::RUNNING), "b", v1::Task::BLOCKED), "a",
                           v1::Task::LEASED));
    writer->Write(WithTask(Change(2, v1::Job::RUNNING), "a", v1::Task::SUCCEEDED));
    writer->Write(Change(3, v1::Job::SUCCEEDED));
    return grpc::Status::OK;
  };
  std::vector<std::string> states;
  ASSERT_TRUE(Connect()
                  ->WatchJob("w",
                             [&](const JobUpdate& update) {
                               std::string line;
                               for (const Task& task : update.tasks) {
                                 line +=
                                     task.name + "=" + std::string(TaskStateName(task.state)) + " ";
                               }
                               states.push_back(line);
                             })
                  .ok());
  EXPECT_THAT(states, ElementsAre("a=LEASED b=BLOCKED ", "a=SUCCEEDED b=BLOCKED ",
                                  "a=SUCCEEDED b=BLOCKED "));
}

TEST_F(ClientTest, WatchOfAnUnknownJobFailsAtOnce) {
  std::atomic<int> calls{0};
  server_.jobs.watch = [&](grpc::ServerContext*, const v1::WatchJobRequest&, WatchWriter*) {
    ++calls;
    return ToGrpcStatus(NotFound("JOB_NOT_FOUND", "no jobs/w"));
  };
  EXPECT_EQ(ErrorReason(Connect()->WatchJob("w", nullptr).status()), "JOB_NOT_FOUND");
  EXPECT_EQ(calls, 1);
}

TEST_F(ClientTest, WatchThatNeverConnectedGivesUpLikeACall) {
  server_.Stop();
  const auto job = Connect()->WatchJob("w", nullptr);
  EXPECT_EQ(ErrorReason(job.status()), "SERVER_UNREACHABLE");
}

TEST_F(ClientTest, WatchLosesPatienceWithAServerThatStaysAway) {
  server_.jobs.get = [](const v1::GetJobRequest&, v1::Job*) { return testing::Unavailable(); };
  server_.jobs.watch = [&](grpc::ServerContext*, const v1::WatchJobRequest& request,
                           WatchWriter* writer) {
    if (request.after_version() == 0) writer->Write(Change(1, v1::Job::RUNNING));
    return testing::Unavailable();
  };
  ClientOptions options = Options();
  options.retry.watch_patience = absl::Milliseconds(100);
  EXPECT_EQ(ErrorReason(Connect(options)->WatchJob("w", nullptr).status()), "SERVER_UNREACHABLE");
}

TEST_F(ClientTest, WatchNoticesThatTheJobWasReplaced) {
  server_.jobs.get = [](const v1::GetJobRequest& request, v1::Job* reply) {
    *reply = FakeJob(request.name(), 1, v1::Job::QUEUED);
    reply->set_uid("uid-2");
    return grpc::Status::OK;
  };
  server_.jobs.watch = [&](grpc::ServerContext* context, const v1::WatchJobRequest& request,
                           WatchWriter* writer) {
    if (request.after_version() == 0) {
      writer->Write(Change(50, v1::Job::RUNNING));
      return testing::Unavailable();
    }
    testing::WaitUntilCancelled(context);  // nothing newer than 50 for long
    return grpc::Status::CANCELLED;
  };
  EXPECT_EQ(ErrorReason(Connect()->WatchJob("w", nullptr).status()), "JOB_REPLACED");
}

TEST_F(ClientTest, CancelEndsABlockedWatch) {
  absl::Notification waiting;
  server_.jobs.watch = [&](grpc::ServerContext* context, const v1::WatchJobRequest&, WatchWriter*) {
    waiting.Notify();
    testing::WaitUntilCancelled(context);
    return grpc::Status::CANCELLED;
  };
  auto client = Connect();
  JobWatcher watcher = client->WatchJob("w");
  std::thread canceller([&] {
    waiting.WaitForNotification();
    watcher.Cancel();
  });
  const auto update = watcher.Next();
  canceller.join();
  EXPECT_EQ(ErrorReason(update.status()), "WATCH_CANCELLED");
  EXPECT_EQ(ErrorReason(watcher.Next().status()), "WATCH_CANCELLED") << "and stays cancelled";
}

TEST_F(ClientTest, ReportArrivesWhole) {
  server_.jobs.get = [](const v1::GetJobRequest& request, v1::Job* reply) {
    *reply = FakeJob(request.name(), 1, v1::Job::SUCCEEDED);
    reply->mutable_artifact()->set_uri("file:///a");
    v1::JobReport* report = reply->mutable_report();
    report->set_perplexity_after(29.5);
    report->add_warnings("w");
    v1::LayerReport* layer = report->add_layers();
    layer->set_layer(3);
    layer->set_initial_loss(0.5);
    layer->set_final_loss(0.25);
    layer->mutable_duration()->set_seconds(7);
    return grpc::Status::OK;
  };
  const auto job = Connect()->GetJob("a");
  ASSERT_TRUE(job.ok());
  ASSERT_TRUE(job->report.has_value());
  EXPECT_FALSE(job->report->perplexity_before.has_value());
  EXPECT_EQ(job->report->perplexity_after, 29.5);
  ASSERT_EQ(job->report->layers.size(), 1u);
  EXPECT_EQ(job->report->layers[0].layer, 3);
  EXPECT_EQ(job->report->layers[0].duration, absl::Seconds(7));
  EXPECT_EQ(job->artifact->uri, "file:///a");
  EXPECT_FALSE(job->error.has_value());
  EXPECT_EQ(job->deadline, std::nullopt);
}

}  // namespace
}  // namespace uniquanf
