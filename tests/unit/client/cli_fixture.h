// Runs the command line client as a process, against a server in this process whose answers a test
// scripts.
#ifndef UNIQUANF_TESTS_UNIT_CLIENT_CLI_FIXTURE_H_
#define UNIQUANF_TESTS_UNIT_CLIENT_CLI_FIXTURE_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/unit/client/fake_service.h"

extern char** environ;

namespace uniquanf {

using testing::FakeJob;
using testing::WatchWriter;

struct Result {
  int exit_code = -1;
  std::string out, err;
};

class CliTest : public ::testing::Test {
 protected:
  // `terminal` (optional) becomes standard error.
  pid_t Spawn(std::vector<std::string> arguments, int terminal = -1) {
    setenv("UNIQUANF_CONFIG", Path("config.yaml").c_str(), 1);
    arguments.insert(arguments.begin(), {UNIQUANF_CLI, "--server", server_.address()});
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, input_.c_str(), O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1,
                                     output_.empty() ? Path("out").c_str() : output_.c_str(),
                                     O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (terminal >= 0) {
      posix_spawn_file_actions_adddup2(&actions, terminal, 2);
    } else {
      posix_spawn_file_actions_addopen(&actions, 2, Path("err").c_str(),
                                       O_WRONLY | O_CREAT | O_TRUNC, 0600);
    }
    pid_t pid = -1;
    EXPECT_EQ(posix_spawn(&pid, UNIQUANF_CLI, &actions, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    return pid;
  }
  Result Wait(pid_t pid) {
    int status = 0;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), Read("out"), Read("err")};
  }
  Result Run(const std::vector<std::string>& arguments) { return Wait(Spawn(arguments)); }

  std::string Path(const std::string& what) {
    return absl::StrCat(::testing::TempDir(), "/cli-", getpid(), "-", what);
  }
  std::string Read(const std::string& what) {
    std::ifstream file(Path(what));
    return std::string((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  }
  void ScriptGet(grpc::Status status, v1::Job::State state = v1::Job::RUNNING) {
    server_.jobs.get = [=](const v1::GetJobRequest& request, v1::Job* reply) {
      *reply = FakeJob(request.name(), 1, state);
      return status;
    };
  }
  void ScriptWatch(v1::WatchJobResponse response) {
    server_.jobs.watch = [=](grpc::ServerContext*, const v1::WatchJobRequest&,
                             WatchWriter* writer) {
      writer->Write(response);
      return grpc::Status::OK;
    };
  }

  void Write(const std::string& what, const std::string& text) {
    std::ofstream(Path(what)) << text;
  }

  std::string input_ = "/dev/null";
  std::string output_;  // of standard output, when not Path("out")
  testing::FakeServer server_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_UNIT_CLIENT_CLI_FIXTURE_H_
