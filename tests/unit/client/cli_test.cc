// The command line client as a process: exit codes, output, errors.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/notification.h"
#include "common/base/status.h"
#include "tests/unit/client/cli_fixture.h"

namespace uniquanf {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST_F(CliTest, UsageErrorsAreCode2AndSuggestTheNearestName) {
  Result result = Run({"sumbit"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("unknown command \"sumbit\". Did you mean submit?"));
  result = Run({"list", "--pgae-size=3"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, AllOf(HasSubstr("--page-size?"), HasSubstr("uniquanf help list")));
  result = Run({"submit", "--model=m", "--bits=11"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("flag --bits is \"11\": allowed: a whole number from 2 to 8"));
  EXPECT_EQ(Run({"submit"}).exit_code, 2);
  EXPECT_EQ(Run({"get"}).exit_code, 2);
  EXPECT_EQ(Run({"tasks", "a", "b"}).exit_code, 2);
  EXPECT_EQ(Run({}).exit_code, 2);
}

TEST_F(CliTest, HelpIsThereForEveryCommand) {
  const Result overview = Run({"help"});
  EXPECT_EQ(overview.exit_code, 0);
  for (const char* command :
       {"submit", "watch", "get", "list", "tasks", "cancel", "pause", "resume", "retry", "delete",
        "download", "workers", "drain", "undrain", "info", "version"}) {
    EXPECT_THAT(overview.out, HasSubstr(absl::StrCat("\n  ", command, " ")));
    const Result help = Run({"help", command});
    EXPECT_EQ(help.exit_code, 0);
    EXPECT_THAT(help.out, StartsWith(absl::StrCat("Usage: uniquanf ", command)));
    EXPECT_EQ(Run({command, "--help"}).out, help.out);
  }
}

TEST_F(CliTest, ExitCodesTellErrorsApart) {
  ScriptGet(ToGrpcStatus(NotFound("JOB_NOT_FOUND", "there is no jobs/x")));
  Result result = Run({"get", "x"});
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(result.err, HasSubstr("there is no jobs/x [JOB_NOT_FOUND]"));
  ScriptGet(ToGrpcStatus(InvalidInput("INVALID_REQUEST", "no")));
  EXPECT_EQ(Run({"get", "x"}).exit_code, 5);
  ScriptGet(ToGrpcStatus(FailedPrecondition("JOB_FINAL", "no")));
  EXPECT_EQ(Run({"get", "x"}).exit_code, 5);
  ScriptGet(grpc::Status(grpc::StatusCode::INTERNAL, "bug"));
  EXPECT_EQ(Run({"get", "x"}).exit_code, 7);
  ScriptGet(grpc::Status::OK);
  EXPECT_EQ(Run({"get", "x"}).exit_code, 0);
  server_.Stop();
  result = Run({"get", "x", "--timeout=300ms"});
  EXPECT_EQ(result.exit_code, 4);
  EXPECT_THAT(result.err, HasSubstr("UNIQUANF_SERVER"));
}

TEST_F(CliTest, JsonErrorsAreDocuments) {
  ScriptGet(ToGrpcStatus(NotFound("JOB_NOT_FOUND", "there is no jobs/x")));
  const Result result = Run({"get", "x", "--json"});
  const auto json = nlohmann::json::parse(result.out, nullptr, false);
  ASSERT_FALSE(json.is_discarded()) << result.out;
  EXPECT_EQ(json["error"]["code"], "NOT_FOUND");
  EXPECT_EQ(json["error"]["reason"], "JOB_NOT_FOUND");
  EXPECT_EQ(json["error"]["message"], "there is no jobs/x");
}

TEST_F(CliTest, SubmitMakesLocalPathsAbsoluteAndPrintsTheName) {
  v1::CreateJobRequest seen;
  server_.jobs.create = [&](const v1::CreateJobRequest& request, v1::Job* reply) {
    seen = request;
    *reply = FakeJob("jobs/new", 1, v1::Job::QUEUED);
    *reply->mutable_spec() = request.job().spec();
    return grpc::Status::OK;
  };
  const Result result =
      Run({"submit", "--model", "models/tiny", "--calibration=/c.safetensors",
           "--output=s3://bucket/out", "--bits=3", "--override=lm*=full", "--label", "team=a=b",
           "--require=zone=b", "--require", "disk=ssd", "--priority=5", "--ttl=24h",
           "--deadline=2100-01-01T00:00:00Z", "--job-id=new"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "jobs/new\n");
  const v1::QuantizationSpec& spec = seen.job().spec();
  EXPECT_THAT(spec.model_uri(), AllOf(StartsWith("file:///"), ::testing::EndsWith("/models/tiny")));
  EXPECT_EQ(spec.calibration_uri(), "file:///c.safetensors");
  EXPECT_EQ(spec.output_uri(), "s3://bucket/out");
  EXPECT_EQ(spec.evaluation_uri(), "");
  EXPECT_EQ(spec.bits(), 3);
  EXPECT_TRUE(spec.overrides(0).full_precision());
  EXPECT_EQ(seen.job().labels().at("team"), "a=b");
  EXPECT_EQ(seen.job().labels().at("require/zone"), "b");
  EXPECT_EQ(seen.job().labels().at("require/disk"), "ssd");
  EXPECT_EQ(seen.job().time_to_live().seconds(), 86400);
  EXPECT_EQ(seen.job().deadline().seconds(), 4102444800);
  EXPECT_FALSE(seen.request_id().empty());
}

TEST_F(CliTest, ValidateOnlyCreatesNothingAndSaysSo) {
  server_.jobs.create = [&](const v1::CreateJobRequest& request, v1::Job* reply) {
    EXPECT_TRUE(request.validate_only());
    *reply = request.job();
    return grpc::Status::OK;
  };
  const Result result = Run({"submit", "--model=m", "--validate-only"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, HasSubstr("nothing was created"));
}

v1::WatchJobResponse FinalState(v1::Job::State state) {
  v1::WatchJobResponse response;
  *response.mutable_job() = FakeJob("jobs/w", 2, state);
  if (state == v1::Job::FAILED) {
    response.mutable_job()->mutable_error()->set_reason("TENSOR_SHAPE");
    response.mutable_job()->mutable_error()->set_message("lm_head has another shape");
  }
  if (state == v1::Job::SUCCEEDED) {
    v1::JobReport* report = response.mutable_job()->mutable_report();
    report->set_perplexity_before(25.2342);
    report->set_perplexity_after(29.1234);
    report->set_model_size_bytes(1 << 20);
    report->set_artifact_size_bytes(1 << 18);
    report->add_warnings("layer 1 saturated\x1b[2J\nforged line \u009b2J\u202e");
    v1::LayerReport* layer = report->add_layers();
    layer->set_initial_loss(0.5);
    layer->set_final_loss(0.25);
    layer->set_bits(3);
    response.mutable_job()->mutable_artifact()->set_uri("file:///artifacts/w");
  }
  return response;
}

TEST_F(CliTest, WatchEndsWithTheJobsOutcome) {
  ScriptWatch(FinalState(v1::Job::SUCCEEDED));
  Result result = Run({"watch", "w"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("25.2342 before, 29.1234 after (+15.4%)"), HasSubstr("4.00x smaller"),
                    HasSubstr("5.0000e-01"), HasSubstr("file:///artifacts/w"),
                    HasSubstr("layer 1 saturated\\x1b[2J\\x0aforged line "
                              "\\u009b2J\\u202e\n")));
  EXPECT_THAT(result.out, Not(HasSubstr("\x1b")));
  EXPECT_THAT(Run({"watch", "w", "--json"}).out,
              AllOf(HasSubstr("\\u009b2J\\u202e"), Not(HasSubstr("\u009b"))));
  ScriptWatch(FinalState(v1::Job::SUCCEEDED));
  EXPECT_THAT(result.err, Not(HasSubstr("\x1b")));
  ScriptWatch(FinalState(v1::Job::FAILED));
  result = Run({"watch", "w"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.out, HasSubstr("lm_head has another shape [TENSOR_SHAPE]"));
  ScriptWatch(FinalState(v1::Job::CANCELLED));
  EXPECT_EQ(Run({"watch", "w"}).exit_code, 6);
}

TEST_F(CliTest, WatchWithJsonPrintsALineForEachChange) {
  server_.jobs.watch = [](grpc::ServerContext*, const v1::WatchJobRequest&, WatchWriter* writer) {
    v1::WatchJobResponse running;
    *running.mutable_job() = FakeJob("jobs/w", 1, v1::Job::RUNNING);
    running.add_tasks()->set_name("jobs/w/tasks/prepare");
    writer->Write(running);
    writer->Write(FinalState(v1::Job::SUCCEEDED));
    return grpc::Status::OK;
  };
  const Result result = Run({"watch", "w", "--json"});
  EXPECT_EQ(result.exit_code, 0);
  std::vector<std::string> states;
  for (const auto line : absl::StrSplit(result.out, '\n', absl::SkipEmpty())) {
    const auto json = nlohmann::json::parse(std::string(line), nullptr, false);
    ASSERT_FALSE(json.is_discarded()) << line;
    states.push_back(json["job"]["state"]);
    EXPECT_EQ(json["tasks"].size(), 1u);
  }
  EXPECT_THAT(states, ::testing::ElementsAre("RUNNING", "SUCCEEDED"));
}

TEST_F(CliTest, InterruptedWatchLeavesTheJobRunningAndSaysSo) {
  absl::Notification watching;
  bool cancelled_job = false;
  server_.jobs.cancel = [&](const v1::CancelJobRequest&, v1::Job*) {
    cancelled_job = true;
    return grpc::Status::OK;
  };
  server_.jobs.watch = [&](grpc::ServerContext* context, const v1::WatchJobRequest&, WatchWriter*) {
    watching.Notify();
    testing::WaitUntilCancelled(context);
    return grpc::Status::CANCELLED;
  };
  const pid_t pid = Spawn({"watch", "w"});
  watching.WaitForNotification();
  // Twice at once, as timeout(1) does when it signals the process and its group.
  ASSERT_EQ(kill(pid, SIGINT), 0);
  kill(pid, SIGINT);
  const Result result = Wait(pid);
  EXPECT_EQ(result.exit_code, 130);
  EXPECT_THAT(result.err, AllOf(HasSubstr("w goes on"), HasSubstr("uniquanf watch w")));
  EXPECT_FALSE(cancelled_job);
}

TEST_F(CliTest, WatchOnATerminalRedrawsBars) {
  server_.jobs.watch = [](grpc::ServerContext*, const v1::WatchJobRequest&, WatchWriter* writer) {
    v1::WatchJobResponse running;
    *running.mutable_job() = FakeJob("jobs/w", 1, v1::Job::RUNNING);
    v1::JobProgress* progress = running.mutable_job()->mutable_progress();
    progress->set_fraction(0.25);
    progress->set_num_layers(4);
    progress->set_num_layers_succeeded(1);
    progress->mutable_remaining()->set_seconds(95);
    v1::Task* task = running.add_tasks();
    task->set_name("jobs/w/tasks/layer-0001");
    task->set_kind(v1::Task::LAYER);
    task->set_layer(1);
    task->set_state(v1::Task::LEASED);
    task->mutable_progress()->set_phase("reconstructing");
    task->mutable_progress()->set_step(30);
    task->mutable_progress()->set_num_steps(40);
    task->mutable_progress()->set_loss(0.00123);
    writer->Write(running);
    running.mutable_job()->set_version(2);
    running.mutable_tasks(0)->set_state(v1::Task::SUCCEEDED);
    writer->Write(running);
    v1::WatchJobResponse final_state = FinalState(v1::Job::SUCCEEDED);
    final_state.mutable_job()->set_version(3);
    writer->Write(final_state);
    return grpc::Status::OK;
  };
  winsize size = {};
  size.ws_row = 24;
  size.ws_col = 90;
  int controller = -1, terminal = -1;
  ASSERT_EQ(openpty(&controller, &terminal, nullptr, nullptr, &size), 0);
  setenv("TERM", "xterm", 1);
  unsetenv("NO_COLOR");
  const pid_t pid = Spawn({"watch", "w"}, terminal);
  close(terminal);
  std::string screen;
  char buffer[4096];
  ssize_t n;
  while ((n = read(controller, buffer, sizeof(buffer))) > 0) screen.append(buffer, n);
  close(controller);
  EXPECT_EQ(Wait(pid).exit_code, 0);
  EXPECT_THAT(screen, AllOf(HasSubstr("RUNNING  layers 1/4  1m35s left"),
                            HasSubstr("75%  reconstructing  block error 1.230e-03"),
                            HasSubstr("\x1b[2A\r\x1b[J"), HasSubstr("layer 1 done"),
                            HasSubstr("\x1b[32m"), HasSubstr("100%  SUCCEEDED")));
}

TEST_F(CliTest, WatchTellsTheRoundsOfALayerApart) {
  server_.jobs.watch = [](grpc::ServerContext*, const v1::WatchJobRequest&, WatchWriter* writer) {
    v1::WatchJobResponse update;
    *update.mutable_job() = FakeJob("jobs/w", 1, v1::Job::RUNNING);
    for (const int round : {0, 1}) {
      v1::Task* task = update.add_tasks();
      task->set_name(round == 0 ? "jobs/w/tasks/layer-0003" : "jobs/w/tasks/layer-0003-1");
      task->set_kind(v1::Task::LAYER);
      task->set_layer(3);
      task->set_round(round);
      task->set_state(v1::Task::LEASED);
    }
    writer->Write(update);
    update.mutable_job()->set_version(2);
    for (v1::Task& task : *update.mutable_tasks()) task.set_state(v1::Task::SUCCEEDED);
    writer->Write(update);
    v1::WatchJobResponse final_state = FinalState(v1::Job::SUCCEEDED);
    final_state.mutable_job()->set_version(3);
    writer->Write(final_state);
    return grpc::Status::OK;
  };
  const Result text = Wait(Spawn({"watch", "w"}));
  EXPECT_THAT(text.err, AllOf(HasSubstr("layer 3 done"), HasSubstr("layer 3 round 2 done")));
  const Result json = Wait(Spawn({"watch", "w", "--json"}));
  EXPECT_THAT(json.out, AllOf(HasSubstr("\"round\":0"), HasSubstr("\"round\":1")));
}

TEST_F(CliTest, ListShowsATableAndWhereItContinues) {
  server_.jobs.list = [](const v1::ListJobsRequest& request, v1::ListJobsResponse* reply) {
    EXPECT_EQ(request.filter(), "state=RUNNING");
    if (request.page_token().empty()) {
      *reply->add_jobs() = FakeJob("jobs/one", 1, v1::Job::RUNNING);
      reply->set_next_page_token("next");
    } else {
      *reply->add_jobs() = FakeJob("jobs/two", 1, v1::Job::RUNNING);
    }
    return grpc::Status::OK;
  };
  Result result = Run({"list", "--filter", "state=RUNNING"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out,
              AllOf(StartsWith("JOB"), HasSubstr("one  RUNNING"), Not(HasSubstr("two"))));
  EXPECT_THAT(result.err, HasSubstr("--page-token=next"));
  result = Run({"list", "--filter=state=RUNNING", "--all", "--json"});
  const auto json = nlohmann::json::parse(result.out, nullptr, false);
  ASSERT_FALSE(json.is_discarded()) << result.out;
  EXPECT_EQ(json["jobs"].size(), 2u);
  EXPECT_EQ(json["jobs"][1]["name"], "jobs/two");
  EXPECT_TRUE(json["jobs"][1]["artifact"].is_null());
}

TEST_F(CliTest, WorkersAndDrainSpeakToTheAdminService) {
  server_.admin.list_workers = [](const v1::ListWorkersRequest&, v1::ListWorkersResponse* reply) {
    v1::Worker* worker = reply->add_workers();
    worker->set_name("workers/w1");
    worker->set_state(v1::Worker::READY);
    worker->mutable_capabilities()->set_device("cpu");
    return grpc::Status::OK;
  };
  server_.admin.drain = [](const v1::DrainWorkerRequest& request, v1::Worker* reply) {
    reply->set_name(request.name());
    reply->set_state(v1::Worker::DRAINING);
    return grpc::Status::OK;
  };
  EXPECT_THAT(Run({"workers"}).out, HasSubstr("w1      READY  cpu"));
  server_.admin.list_workers = [](const v1::ListWorkersRequest&, v1::ListWorkersResponse* reply) {
    for (const char* process : {"w1@aaaaaaaa", "w1@bbbbbbbb"}) {
      v1::Worker* worker = reply->add_workers();
      worker->set_name("workers/w1");
      worker->set_process(process);
      worker->set_state(v1::Worker::QUARANTINED);
      worker->set_status_message("3 jobs in a row\nforged");
    }
    return grpc::Status::OK;
  };
  const Result shared = Run({"workers"});
  EXPECT_THAT(shared.out, AllOf(HasSubstr("w1@aaaaaaaa  QUARANTINED"), HasSubstr("w1@bbbbbbbb"),
                                HasSubstr("w1@aaaaaaaa: 3 jobs in a row\\x0aforged\n")));
  EXPECT_THAT(shared.err, HasSubstr("2 processes are called w1"));
  EXPECT_EQ(Run({"drain", "w1"}).out, "workers/w1 is DRAINING, 0 tasks running\n");
}

TEST_F(CliTest, DownloadOfAnUnfinishedJobIsRefused) {
  ScriptGet(grpc::Status::OK, v1::Job::RUNNING);
  const Result result = Run({"download", "x", Path("nowhere")});
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_THAT(result.err, HasSubstr("jobs/x has no artifact: it is RUNNING"));
}

}  // namespace
}  // namespace uniquanf
