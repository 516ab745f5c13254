#include "tests/support/mini_cluster.h"

#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "gtest/gtest.h"

namespace uniquanf {
namespace {

constexpr absl::Duration kStartTimeout = absl::Seconds(30);
constexpr size_t kLogTailBytes = 6000;

std::string Trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

void PrintLogTail(const std::string& name, const ChildProcess& process) {
  const std::string log = process.Log();
  const size_t start = log.size() > kLogTailBytes ? log.size() - kLogTailBytes : 0;
  std::fprintf(stderr, "---- the end of the log of %s\n%s\n", name.c_str(), log.c_str() + start);
}

}  // namespace

MiniCluster::MiniCluster(const MiniClusterOptions& options)
    : options_(options), address_("127.0.0.1:0") {}

MiniCluster::~MiniCluster() {
  if (testing::Test::HasFailure()) {
    if (server_ != nullptr) PrintLogTail("the server", *server_);
    for (const auto& [name, worker] : workers_) PrintLogTail("worker " + name, *worker);
  }
  workers_.clear();
  server_.reset();
}

std::string MiniCluster::Program(const std::string& name) const {
  return absl::StrCat(options_.binary_dir, "/", name);
}

bool MiniCluster::StartServer(const ProgramOptions& options) {
  const std::string ready_file = File("server.ready");
  std::remove(ready_file.c_str());
  std::vector<std::string> arguments = {
      absl::StrCat("--listen=", address_), absl::StrCat("--data-dir=", File("server")),
      absl::StrCat("--ready-file=", ready_file),
      absl::StrCat("--lease-duration=", absl::FormatDuration(options_.lease_duration))};
  arguments.insert(arguments.end(), options_.server_flags.begin(), options_.server_flags.end());
  arguments.insert(arguments.end(), options.flags.begin(), options.flags.end());
  server_ = std::make_unique<ChildProcess>(Program("uniquanf-server"), arguments,
                                           options.environment, File("server.log"));
  const bool up = WaitUntil(
      [&] { return access(ready_file.c_str(), R_OK) == 0 || !server_->running(); }, kStartTimeout);
  if (!up || access(ready_file.c_str(), R_OK) != 0) {
    PrintLogTail("the server", *server_);
    return false;
  }
  address_ = Trimmed(ReadFile(ready_file));
  if (client_ == nullptr) {
    client_options_.retry.max_attempts = options_.client_attempts;
    client_options_.server = address_;
    auto client = Client::Connect(client_options_);
    UQ_CHECK(client.ok());
    client_ = *std::move(client);
  }
  return true;
}

void MiniCluster::KillServer() { server_->Kill(); }

ChildProcess* MiniCluster::StartWorker(const std::string& name, const ProgramOptions& options) {
  std::unique_ptr<ChildProcess>& worker = workers_[name];
  UQ_CHECK(worker == nullptr || !worker->running());
  const std::string ready_file = File(absl::StrCat("worker-", name, ".ready"));
  std::remove(ready_file.c_str());
  const std::string& server = options.server.empty() ? address_ : options.server;
  std::vector<std::string> arguments = {absl::StrCat("--server=", server),
                                        absl::StrCat("--name=", name), "--device=cpu",
                                        absl::StrCat("--ready-file=", ready_file)};
  arguments.insert(arguments.end(), options.flags.begin(), options.flags.end());
  worker =
      std::make_unique<ChildProcess>(Program("uniquanf-worker"), arguments, options.environment,
                                     File(absl::StrCat("worker-", name, ".log")));
  return worker.get();
}

bool MiniCluster::WaitUntilReady(const std::string& worker, absl::Duration timeout) {
  const std::string ready_file = File(absl::StrCat("worker-", worker, ".ready"));
  return WaitUntil([&] { return access(ready_file.c_str(), R_OK) == 0; }, timeout);
}

CommandResult MiniCluster::Run(const std::string& program,
                               const std::vector<std::string>& arguments, absl::Duration timeout) {
  const std::string log = File(absl::StrCat("command-", num_commands_++, ".log"));
  ChildProcess process(Program(program), arguments, {{"UNIQUANF_SERVER", address_}}, log);
  const std::optional<ExitStatus> status = process.WaitForExit(timeout);
  if (!status.has_value()) process.Kill();
  return {status.value_or(ExitStatus{-1, SIGKILL}), process.Log()};
}

absl::StatusOr<Job> MiniCluster::WaitForJob(const std::string& job, absl::Duration timeout) {
  absl::StatusOr<Job> last = absl::UnknownError("not asked yet");
  const bool final = WaitUntil(
      [&] {
        last = client_->GetJob(job);
        return last.ok() ? IsFinal(last->state) : !absl::IsUnavailable(last.status());
      },
      timeout);
  if (final || !last.ok()) return last;
  return absl::DeadlineExceededError(absl::StrCat(
      job, " is still ", JobStateName(last->state), " (", last->progress.num_tasks_succeeded,
      " of ", last->progress.num_tasks, " tasks): ", last->status_message));
}

bool MiniCluster::WaitForTasks(const std::string& job,
                               const std::function<bool(const std::vector<Task>&)>& condition,
                               absl::Duration timeout) {
  return WaitUntil(
      [&] {
        const auto tasks = client_->ListTasks(job);
        return tasks.ok() && condition(*tasks);
      },
      timeout);
}

std::map<std::string, std::string> ArtifactBytes(const std::string& dir) {
  std::map<std::string, std::string> bytes;
  bytes["manifest.json"] = ReadFile(dir + "/manifest.json");
  const auto manifest = nlohmann::json::parse(bytes["manifest.json"]);
  for (const auto& file : manifest.at("files")) {
    const std::string path = file.at("path");
    bytes[path] = ReadFile(dir + "/" + path);
  }
  return bytes;
}

}  // namespace uniquanf
