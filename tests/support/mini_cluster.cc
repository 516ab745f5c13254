#include "tests/support/mini_cluster.h"

#include <signal.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
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

// Where a server that has just started says that it listens; "" before that.
std::string ListeningAddress(const std::string& log, uintmax_t offset) {
  const std::string kText = " listening on address=";
  const std::string kJson = "\"event\":\"listening on\",\"address\":\"";
  std::ifstream file(log, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset));
  for (std::string line; std::getline(file, line) && !file.eof();) {
    if (const size_t at = line.find(kText); at != std::string::npos) {
      return line.substr(at + kText.size());
    }
    if (const size_t at = line.find(kJson); at != std::string::npos) {
      const size_t start = at + kJson.size();
      return line.substr(start, line.find('"', start) - start);
    }
  }
  return "";
}

}  // namespace

MiniCluster::MiniCluster(const MiniClusterOptions& options) : options_(options) {
  for (int i = 0; i < options_.num_servers; ++i) {
    servers_.push_back({i == 0 ? "server" : absl::StrCat("server-", i), "127.0.0.1:0", nullptr});
  }
}

MiniCluster::~MiniCluster() {
  if (testing::Test::HasFailure()) {
    for (const Server& server : servers_) {
      if (server.process != nullptr) PrintLogTail(server.name, *server.process);
    }
    for (const auto& [name, worker] : workers_) PrintLogTail("worker " + name, *worker);
  }
  workers_.clear();
  servers_.clear();
}

std::string MiniCluster::Program(const std::string& name) const {
  return absl::StrCat(options_.binary_dir, "/", name);
}

std::string MiniCluster::address() const {
  return absl::StrJoin(servers_, ",",
                       [](std::string* out, const Server& server) { out->append(server.address); });
}

void MiniCluster::SpawnServer(Server* server, const ProgramOptions& options) {
  const std::string ready_file = File(server->name + ".ready");
  std::remove(ready_file.c_str());
  std::vector<std::string> arguments = {
      absl::StrCat("--listen=", server->address), absl::StrCat("--data-dir=", File(server->name)),
      absl::StrCat("--ready-file=", ready_file),
      absl::StrCat("--lease-duration=", absl::FormatDuration(options_.lease_duration))};
  if (servers_.size() > 1) {
    arguments.push_back(absl::StrCat("--object-root=file://", File("objects")));
  }
  arguments.insert(arguments.end(), options_.server_flags.begin(), options_.server_flags.end());
  arguments.insert(arguments.end(), options.flags.begin(), options.flags.end());
  server->process = std::make_unique<ChildProcess>(
      Program("uniquanf-server"), arguments, options.environment, File(server->name + ".log"));
}

bool MiniCluster::StartServer(const ProgramOptions& options) {
  Server& server = servers_[0];
  SpawnServer(&server, options);
  const std::string ready_file = File(server.name + ".ready");
  const bool up =
      WaitUntil([&] { return access(ready_file.c_str(), R_OK) == 0 || !server.process->running(); },
                kStartTimeout);
  if (!up || access(ready_file.c_str(), R_OK) != 0) {
    PrintLogTail(server.name, *server.process);
    return false;
  }
  server.address = Trimmed(ReadFile(ready_file));
  ConnectClient();
  return true;
}

bool MiniCluster::StartServer(int index, const ProgramOptions& options) {
  Server& server = servers_[Index(index)];
  const std::string log = File(server.name + ".log");
  std::error_code none_yet;
  const uintmax_t size = std::filesystem::file_size(log, none_yet);
  SpawnServer(&server, options);
  std::string address;
  WaitUntil(
      [&] {
        address = ListeningAddress(log, none_yet ? 0 : size);
        return !address.empty() || !server.process->running();
      },
      kStartTimeout);
  if (address.empty()) return false;
  server.address = address;
  ConnectClient();
  return true;
}

void MiniCluster::ConnectClient() {
  for (const Server& server : servers_) {
    if (client_ != nullptr || absl::EndsWith(server.address, ":0")) return;
  }
  client_options_.retry.max_attempts = options_.client_attempts;
  client_options_.server = address();
  auto client = Client::Connect(client_options_);
  UQ_CHECK(client.ok());
  client_ = *std::move(client);
}

void MiniCluster::KillServer(int index) { server(index)->Kill(); }

bool MiniCluster::IsActive(int index) const {
  return access(File(servers_[Index(index)].name + ".ready").c_str(), R_OK) == 0;
}

ChildProcess* MiniCluster::StartWorker(const std::string& name, const ProgramOptions& options) {
  std::unique_ptr<ChildProcess>& worker = workers_[name];
  UQ_CHECK(worker == nullptr || !worker->running());
  const std::string ready_file = File(absl::StrCat("worker-", name, ".ready"));
  std::remove(ready_file.c_str());
  const std::string server = options.server.empty() ? address() : options.server;
  std::vector<std::string> arguments = {absl::StrCat("--server=", server),
                                        absl::StrCat("--name=", name), "--device=cpu",
                                        absl::StrCat("--ready-file=", ready_file)};
  arguments.insert(arguments.end(), options.flags.begin(), options.flags.end());
  std::vector<std::string> command = options.wrapper;
  command.push_back(Program("uniquanf-worker"));
  command.insert(command.end(), arguments.begin(), arguments.end());
  worker = std::make_unique<ChildProcess>(
      command[0], std::vector<std::string>(command.begin() + 1, command.end()), options.environment,
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
  ChildProcess process(Program(program), arguments, {{"UNIQUANF_SERVER", address()}}, log);
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
