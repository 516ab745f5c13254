// The command line client: several jobs, documents for programs, files of jobs, completion.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status.h"
#include "common/base/violations.h"
#include "tests/unit/client/cli_fixture.h"

namespace uniquanf {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class CliDocumentsTest : public CliTest {
 protected:
  CliDocumentsTest() {
    server_.jobs.list = [this](const v1::ListJobsRequest& request, v1::ListJobsResponse* reply) {
      filter_ = request.filter();
      for (const char* name : {"jobs/alpha-one", "jobs/beta-one", "jobs/beta-two"}) {
        *reply->add_jobs() = FakeJob(name, 1, v1::Job::RUNNING);
      }
      return grpc::Status::OK;
    };
    server_.jobs.get = [](const v1::GetJobRequest& request, v1::Job* reply) {
      if (request.name() != "jobs/alpha-one" && request.name() != "jobs/beta-one") {
        return ToGrpcStatus(NotFound("JOB_NOT_FOUND", absl::StrCat("no job ", request.name())));
      }
      *reply = FakeJob(request.name(), 1, v1::Job::RUNNING);
      reply->mutable_spec()->set_model_uri("s3://b/m");
      reply->mutable_spec()->set_output_uri("s3://b/out");
      (*reply->mutable_labels())["note"] = "a: b\x1b[2J\u202e";
      return grpc::Status::OK;
    };
    server_.jobs.cancel = [this](const v1::CancelJobRequest& request, v1::Job* reply) {
      cancelled_.push_back(request.name());
      *reply = FakeJob(request.name(), 2, v1::Job::CANCELLED);
      return grpc::Status::OK;
    };
    server_.jobs.create = [this](const v1::CreateJobRequest& request, v1::Job* reply) {
      created_ = request;
      *reply = FakeJob("jobs/new", 1, v1::Job::QUEUED);
      *reply->mutable_spec() = request.job().spec();
      return grpc::Status::OK;
    };
  }
  std::string filter_;
  std::vector<std::string> cancelled_;
  v1::CreateJobRequest created_;
};

TEST_F(CliDocumentsTest, SeveralJobsAreWorkedOnWhateverBecomesOfOne) {
  const Result result = Run({"get", "alpha-one", "nobody", "beta-one", "-o", "json"});
  EXPECT_EQ(result.exit_code, 3);
  const auto json = nlohmann::json::parse(result.out, nullptr, false);
  ASSERT_FALSE(json.is_discarded()) << result.out;
  ASSERT_EQ(json["jobs"].size(), 2u);
  EXPECT_EQ(json["jobs"][1]["name"], "jobs/beta-one");
  ASSERT_EQ(json["errors"].size(), 1u);
  EXPECT_EQ(json["errors"][0]["job"], "nobody");
  EXPECT_EQ(json["errors"][0]["reason"], "JOB_NOT_FOUND");
}

TEST_F(CliDocumentsTest, SelectorsBecomeTheServersFilter) {
  EXPECT_EQ(Run({"cancel", "-l", "team=a,stage!=x", "--state=Running"}).exit_code, 0);
  EXPECT_EQ(filter_, "state=RUNNING AND labels.team=\"a\" AND labels.stage!=\"x\"");
  EXPECT_THAT(cancelled_,
              ::testing::ElementsAre("jobs/alpha-one", "jobs/beta-one", "jobs/beta-two"));
  Run({"list", "--state", "queued,running", "--filter", "priority>0"});
  EXPECT_EQ(filter_,
            "priority>0 AND state!=PAUSED AND state!=CANCELLING AND state!=SUCCEEDED AND "
            "state!=FAILED AND state!=CANCELLED");
  EXPECT_THAT(Run({"list", "--state", "runing"}).err, HasSubstr("Did you mean running?"));
  EXPECT_EQ(Run({"list", "-l", "team"}).exit_code, 2);
  // All jobs by mistake.
  EXPECT_EQ(Run({"cancel"}).exit_code, 2);
  EXPECT_EQ(Run({"cancel", "a", "-l", "team=a"}).exit_code, 2);
}

TEST_F(CliDocumentsTest, TheBeginningOfOneNameIsEnough) {
  EXPECT_THAT(Run({"get", "alph"}).out, HasSubstr("jobs/alpha-one"));
  const Result two = Run({"get", "beta"});
  EXPECT_EQ(two.exit_code, 5);
  EXPECT_THAT(two.err, AllOf(HasSubstr("2 jobs: beta-one, beta-two"), HasSubstr("AMBIGUOUS_NAME")));
  EXPECT_EQ(Run({"get", "gamma"}).exit_code, 3);
}

TEST_F(CliDocumentsTest, YamlAndNamesSayTheSameAsJson) {
  const Result yaml = Run({"get", "alpha-one", "-o", "yaml"});
  EXPECT_THAT(yaml.out, AllOf(HasSubstr("name: jobs/alpha-one\n"), HasSubstr("error: ~\n"),
                              Not(HasSubstr("\x1b")), Not(HasSubstr("\u202e"))));
  EXPECT_EQ(Run({"get", "alpha-one", "-o", "name"}).out, "jobs/alpha-one\n");
  EXPECT_EQ(Run({"list", "-o=name"}).out, "jobs/alpha-one\njobs/beta-one\njobs/beta-two\n");
  // What get prints, submit reads: the same label, whatever stands in it.
  Write("job.yaml", yaml.out);
  ASSERT_EQ(Run({"submit", "-f", Path("job.yaml")}).exit_code, 0) << Read("err");
  EXPECT_EQ(created_.job().labels().at("note"), "a: b\x1b[2J\u202e");
  EXPECT_EQ(created_.job().spec().output_uri(), "");
}

TEST_F(CliDocumentsTest, AJobIsReadFromYamlOrStandardInput) {
  Write("in.yaml",
        "# a sweep\njob_id: one\ntenant: lab\npriority: 7\ndevice: cpu\ntime_to_live: "
        "24h\ndeadline: 12h\n"
        "labels: {sweep: \"7\", team: a}\nspec:\n  model_uri: s3://b/m\n  calibration_uri: "
        "s3://b/c\n  bits: "
        "3\n  overrides:\n    - {pattern: \"*.down_proj\", bits: 4}\n");
  input_ = Path("in.yaml");
  const Result result = Run({"submit", "-f", "-", "--bits", "2", "--label", "more=1"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(created_.job_id(), "one");
  EXPECT_EQ(created_.job().tenant(), "lab");
  EXPECT_EQ(created_.job().priority(), 7);
  EXPECT_EQ(created_.job().time_to_live().seconds(), 86400);
  EXPECT_TRUE(created_.job().has_deadline());
  EXPECT_EQ(created_.job().labels().at("sweep"), "7");
  EXPECT_EQ(created_.job().labels().at("more"), "1");
  EXPECT_EQ(created_.job().spec().bits(), 2);
  EXPECT_EQ(created_.job().spec().overrides(0).bits(), 4);
  Write("spec.yaml", "model_uri: s3://b/m\ncalibration_uri: s3://b/c\nbits: 5\n");
  ASSERT_EQ(Run({"submit", "--spec", Path("spec.yaml")}).exit_code, 0) << Read("err");
  EXPECT_EQ(created_.job().spec().bits(), 5);
}

TEST_F(CliDocumentsTest, AFileThatIsNoJobIsRefusedWithItsLine) {
  struct Row {
    const char* text;
    const char* message;
  };
  const std::string bomb = [] {
    std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
    for (int i = 1; i < 9; ++i) {
      absl::StrAppend(&text, "a", i, ": &a", i, " [");
      for (int j = 0; j < 10; ++j) absl::StrAppend(&text, "*a", i - 1, ", ");
      absl::StrAppend(&text, "]\n");
    }
    return text;
  }();
  for (const Row& row : std::vector<Row>{
           {"spec: {bits: 3}\nprioritee: 1\n", "prioritee"},
           {"priority: 1\n", "spec"},
           {"spec: {bitz: 3}\n", "bitz"},
           {"spec: {bits: [\n", "line 2"},
           {"spec: {}\nspec: {}\n", "twice"},
           {"labels: {a: 7}\nspec: {}\n", "in quotes"},
           {"deadline: yesterday\nspec: {}\n", "deadline"},
           {"- a\n- b\n", "no mapping"},
           {"a: 1\n---\nb: 2\n", "several documents"},
           {"spec: !!python/object x\n", "tags"},
           {bomb.c_str(), "more than 100000 values"},
       }) {
    Write("bad.yaml", row.text);
    const Result result = Run({"submit", "-f", Path("bad.yaml")});
    EXPECT_EQ(result.exit_code, 2) << row.text;
    EXPECT_THAT(result.err, HasSubstr(row.message)) << row.text;
  }
  EXPECT_THAT(Run({"submit", "-f", "/nonexistent"}).err, HasSubstr("/nonexistent"));
}

TEST_F(CliDocumentsTest, EveryViolationIsSaid) {
  Violations violations;
  violations.Add("INVALID_SPEC", "job.spec.bits", "bits = 99");
  violations.Add("INVALID_SPEC", "job.device", "device tpu");
  server_.jobs.create = [&](const v1::CreateJobRequest&, v1::Job*) {
    return ToGrpcStatus(violations.status());
  };
  const Result result = Run({"submit", "--model=m", "-o", "json"});
  EXPECT_EQ(result.exit_code, 5);
  EXPECT_THAT(result.err, AllOf(HasSubstr("bits = 99"), HasSubstr("uniquanf: device tpu\n")));
  const auto json = nlohmann::json::parse(result.out, nullptr, false);
  ASSERT_FALSE(json.is_discarded()) << result.out;
  EXPECT_EQ(json["error"]["violations"][1]["field"], "job.device");
}

TEST_F(CliDocumentsTest, WhatCannotBeWrittenIsAnError) {
  output_ = "/dev/full";
  for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
           {"list"}, {"get", "alpha-one"}, {"get", "alpha-one", "--json"}, {"help"}, {"version"}}) {
    const Result result = Run(command);
    EXPECT_EQ(result.exit_code, 5) << command[0];
    EXPECT_THAT(result.err, HasSubstr("OUTPUT_LOST"));
  }
}

TEST_F(CliDocumentsTest, NoLogLinesOfGrpc) {
  const Result result = Run({"info", "--tls", "--timeout", "1s"});
  EXPECT_EQ(result.exit_code, 4);
  EXPECT_THAT(result.err, AllOf(Not(HasSubstr("ssl_transport_security")), Not(HasSubstr(".cc:"))));
  EXPECT_THAT(Run({"info", "--server", "http://localhost:1"}).err, HasSubstr("without http://"));
}

TEST_F(CliDocumentsTest, AContextPresetsGlobalFlags) {
  Write("config.yaml",
        "current-context: lab\ncontexts:\n  lab: {format: name}\n  other: {timeout: 1s, format: "
        "json}\n");
  EXPECT_EQ(Run({"get", "alpha-one"}).out, "jobs/alpha-one\n");
  EXPECT_THAT(Run({"get", "alpha-one", "--context=other"}).out, HasSubstr("{\n"));
  EXPECT_THAT(Run({"get", "alpha-one", "-o", "table"}).out, HasSubstr("state "));
  EXPECT_THAT(Run({"get", "a", "--context", "nope"}).err, HasSubstr("no context \"nope\""));
  Write("config.yaml", "current-context: lab\ncontexts:\n  lab: {servr: x}\n");
  EXPECT_THAT(Run({"get", "a"}).err,
              AllOf(HasSubstr("config.yaml"), HasSubstr("Did you mean --server?")));
  Write("config.yaml", "[1");
  EXPECT_THAT(Run({"get", "a"}).err, HasSubstr("INVALID_CONFIG"));
  unlink(Path("config.yaml").c_str());
}

TEST_F(CliDocumentsTest, LogsAndDescribeTellWhatHappenedInOrder) {
  server_.jobs.list_tasks = [](const v1::ListTasksRequest&, v1::ListTasksResponse* reply) {
    v1::Task* task = reply->add_tasks();
    task->set_name("jobs/alpha-one/tasks/layer-0000");
    task->set_kind(v1::Task::LAYER);
    task->set_state(v1::Task::SUCCEEDED);
    task->set_attempt(2);
    task->set_worker("workers/gpu-2");
    task->mutable_start_time()->set_seconds(2000000200);
    task->mutable_end_time()->set_seconds(2000000260);
    v1::TaskFailure* failure = task->add_failures();
    failure->set_attempt(1);
    failure->set_worker("workers/gpu-1");
    failure->set_reason("LEASE_EXPIRED");
    failure->set_message("gone\nforged");
    failure->mutable_time()->set_seconds(2000000100);
    return grpc::Status::OK;
  };
  const Result logs = Run({"logs", "alpha-one"});
  EXPECT_EQ(logs.exit_code, 0) << logs.err;
  const size_t failed =
      logs.out.find("attempt 1 failed on gpu-1: gone\\x0aforged [LEASE_EXPIRED]\n");
  const size_t started = logs.out.find("attempt 2 started on gpu-2\n");
  const size_t ended = logs.out.find("attempt 2 succeeded on gpu-2 in 1m00s\n");
  EXPECT_LT(failed, started);
  EXPECT_LT(started, ended);
  EXPECT_NE(ended, std::string::npos) << logs.out;
  EXPECT_THAT(Run({"describe", "alpha-one"}).out,
              AllOf(HasSubstr("\nTasks\n"), HasSubstr("LEASE_EXPIRED"), HasSubstr("\nEvents\n")));
  const auto json = nlohmann::json::parse(Run({"describe", "alpha", "--json"}).out, nullptr, false);
  EXPECT_EQ(json["tasks"].size(), 1u);
  EXPECT_EQ(json["events"].back()["event"], "succeeded");
}

TEST_F(CliDocumentsTest, WaitEndsWithTheJobOrWithTheTimeGiven) {
  v1::WatchJobResponse response;
  *response.mutable_job() = FakeJob("jobs/w", 2, v1::Job::SUCCEEDED);
  ScriptWatch(response);
  EXPECT_EQ(Run({"wait", "w"}).exit_code, 0);
  EXPECT_EQ(Run({"wait", "w", "--for=cancelled"}).exit_code, 1);
  response.mutable_job()->set_state(v1::Job::FAILED);
  ScriptWatch(response);
  EXPECT_EQ(Run({"wait", "w"}).exit_code, 1);
  EXPECT_EQ(Run({"wait", "w", "--for=failed"}).exit_code, 0);
  server_.jobs.watch = [&](grpc::ServerContext* context, const v1::WatchJobRequest&,
                           WatchWriter* writer) {
    response.mutable_job()->set_state(v1::Job::RUNNING);
    writer->Write(response);
    testing::WaitUntilCancelled(context);
    return grpc::Status::CANCELLED;
  };
  const Result late = Run({"wait", "w", "--within=200ms"});
  EXPECT_EQ(late.exit_code, 4);
  EXPECT_THAT(late.err, AllOf(HasSubstr("w is RUNNING, not done"), HasSubstr("WAIT_TIMED_OUT")));
  EXPECT_EQ(Run({"wait", "w", "--for=running"}).exit_code, 0);
}

// Completion offers just what the help shows, and names from the server.
TEST_F(CliDocumentsTest, CompletionAndHelpComeFromTheSameDeclarations) {
  std::vector<std::string> commands;
  const Result list = Run({"__complete", ""});
  for (const absl::string_view line : absl::StrSplit(list.out, '\n', absl::SkipEmpty())) {
    commands.emplace_back(line.substr(0, line.find('\t')));
  }
  EXPECT_GE(commands.size(), 20u);
  const std::string global = Run({"help", "flags"}).out;
  for (const std::string& command : commands) {
    EXPECT_THAT(Run({"help"}).out, HasSubstr(absl::StrCat("\n  ", command, " ")));
    const std::string help = Run({"help", command}).out;
    const std::string manual = Run({command, "--help-man"}).out;
    EXPECT_THAT(help, HasSubstr("\nExamples:\n")) << command;
    EXPECT_THAT(help, Not(HasSubstr("--tls-ca"))) << command;
    size_t num_flags = 0;
    const std::string flags = Run({"__complete", command, "--"}).out;
    for (const absl::string_view line : absl::StrSplit(flags, '\n', absl::SkipEmpty())) {
      const std::string flag(line.substr(0, line.find('\t')));
      if (flag == "--help") continue;
      ++num_flags;
      EXPECT_THAT(absl::StrCat(help, global), HasSubstr(absl::StrCat(" ", flag))) << command;
      std::string troff;
      for (const char c : flag) absl::StrAppend(&troff, c == '-' ? "\\-" : std::string(1, c));
      EXPECT_THAT(manual, HasSubstr(troff)) << command;
    }
    EXPECT_GE(num_flags, 9u) << command;
  }
  EXPECT_THAT(Run({"__complete", "get", "al"}).out, HasSubstr("alpha-one\tRUNNING\n"));
  EXPECT_THAT(Run({"__complete", "--serv"}).out, HasSubstr("--server\t"));
  EXPECT_EQ(Run({"__complete", "list", "--format="}).out,
            "--format=table\n--format=wide\n--format=json\n--format=yaml\n--format=name\n");
  EXPECT_THAT(Run({"__complete", "submit", "--model", ""}).out, HasSubstr(":directory"));
}

}  // namespace
}  // namespace uniquanf
