#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "client/cli/command_line.h"
#include "client/cli/output.h"
#include "common/base/format_bytes.h"
#include "common/base/terminal_progress.h"
#include "common/base/version.h"

namespace uniquanf::cli {
namespace {

using WorkerMethod = absl::StatusOr<Worker> (Client::*)(absl::string_view);

int RunOnWorker(const char* name, const char* summary, const char* other, WorkerMethod method,
                const Arguments& arguments) {
  CommandLine command_line(absl::StrCat("uniquanf ", name, " WORKER [flags]"), summary);
  std::string worker_name;
  command_line.flags().Positional("WORKER", true, &worker_name, "the worker's name");
  command_line.flags().Example(absl::StrCat("uniquanf ", name, " gpu-1"), "By its name.");
  command_line.flags().Example(absl::StrCat("uniquanf ", name, " ", other),
                               "One of several processes that share a name.");
  if (const auto done = command_line.Parse(arguments)) return *done;
  const auto client = command_line.Connect();
  if (!client.ok()) return command_line.Fail(client.status());
  const auto worker = ((*client)->*method)(worker_name);
  if (!worker.ok()) return command_line.Fail(worker.status());
  if (!command_line.PrintDocument(ToJson(*worker))) {
    const std::string& name = absl::StrContains(worker_name, '@') ? worker->process : worker->name;
    std::printf("%s is %s, %zu tasks running\n", Printable(name).c_str(),
                std::string(WorkerStateName(worker->state)).c_str(), worker->tasks.size());
  }
  return kOk;
}

}  // namespace

int RunDrain(const Arguments& arguments) {
  return RunOnWorker("drain",
                     "Lets a worker finish what it does, take nothing new and exit. Its name stays "
                     "drained:\na process that comes under it later gets no tasks until `uniquanf "
                     "undrain`.",
                     "gpu-1@1f2e3d4c", &Client::DrainWorker, arguments);
}
int RunUndrain(const Arguments& arguments) {
  return RunOnWorker("undrain",
                     "Takes back a drain, or ends a quarantine: the worker takes tasks again.",
                     "gpu-1@1f2e3d4c", &Client::UndrainWorker, arguments);
}

int RunWorkers(const Arguments& arguments) {
  CommandLine command_line("uniquanf workers [flags]", "Lists the workers and what they do.");
  command_line.flags().Example("uniquanf workers", "Who works, and on what.");
  command_line.flags().Example("uniquanf workers -o wide", "With labels and devices.");
  if (const auto done = command_line.Parse(arguments)) return *done;
  const auto client = command_line.Connect();
  if (!client.ok()) return command_line.Fail(client.status());
  const auto workers = (*client)->ListWorkers();
  if (!workers.ok()) return command_line.Fail(workers.status());
  nlohmann::ordered_json json;
  json["workers"] = nlohmann::ordered_json::array();
  for (const Worker& worker : *workers) json["workers"].push_back(ToJson(worker));
  if (command_line.PrintDocument(json)) return kOk;
  std::map<std::string, int> num_processes;  // of each name
  for (const Worker& worker : *workers) ++num_processes[worker.name];
  std::vector<Column> columns = {{"WORKER"},
                                 {"STATE"},
                                 {"DEVICE"},
                                 {"CPUS", Column::kNumber},
                                 {"MEMORY", Column::kNumber},
                                 {"SLOTS", Column::kNumber},
                                 {"VERSION"},
                                 {"LAST SEEN", Column::kNumber},
                                 {"TASKS", Column::kLong}};
  if (command_line.wide()) {
    columns.insert(columns.end(), {{"PROCESS"}, {"LABELS"}, {"DESCRIPTION"}});
  }
  std::vector<std::vector<std::string>> rows;
  for (const Worker& worker : *workers) {
    std::string tasks;
    for (const std::string& task : worker.tasks) {
      absl::StrAppend(&tasks, tasks.empty() ? "" : " ", absl::StripPrefix(task, "jobs/"));
    }
    rows.push_back(
        {num_processes[worker.name] > 1 ? worker.process
                                        : std::string(absl::StripPrefix(worker.name, "workers/")),
         std::string(WorkerStateName(worker.state)), worker.device,
         worker.num_cpus == 0 ? "-" : absl::StrCat(worker.num_cpus),
         FormatBytes(worker.memory_bytes), absl::StrCat(worker.num_slots), worker.software_version,
         worker.last_seen_time == absl::InfinitePast()
             ? "-"
             : absl::StrCat(ShortDuration(absl::Now() - worker.last_seen_time), " ago"),
         tasks});
    if (!command_line.wide()) continue;
    rows.back().push_back(worker.process);
    rows.back().push_back(absl::StrJoin(worker.labels, ",", absl::PairFormatter("=")));
    rows.back().push_back(worker.device_description);
  }
  PrintTable(columns, std::move(rows));
  for (const Worker& worker : *workers) {
    if (worker.status_message.empty()) continue;
    std::printf("%s: %s\n", Printable(worker.process).c_str(),
                Printable(worker.status_message).c_str());
  }
  for (const auto& [name, count] : num_processes) {
    if (count < 2) continue;
    std::fprintf(stderr, "%d processes are called %s; give each its own --name\n", count,
                 Printable(absl::StripPrefix(name, "workers/")).c_str());
  }
  return kOk;
}

namespace {

int PrintInfo(const CommandLine& command_line, const ServerInfo& info) {
  if (command_line.PrintDocument(ToJson(info))) return kOk;
  std::printf("version        %s\nrole           %s\nstate          %s\nobjects        %s\n",
              Printable(info.version).c_str(), info.active ? "active" : "standby",
              Printable(info.state_backend).c_str(), Printable(info.object_root).c_str());
  std::printf("started        %s\njobs           %lld\ntasks ready    %lld\ntasks running  %lld\n",
              FormatLocalTime(info.start_time).c_str(), static_cast<long long>(info.num_jobs),
              static_cast<long long>(info.num_tasks_ready),
              static_cast<long long>(info.num_tasks_leased));
  if (info.wall_clock_ahead > absl::ZeroDuration()) {
    std::printf(
        "wall clock     %s ahead: deadlines and deletions wait; if it is right: uniquanf "
        "confirm-clock\n",
        ShortDuration(info.wall_clock_ahead).c_str());
  }
  return kOk;
}

}  // namespace

int RunConfirmClock(const Arguments& arguments) {
  CommandLine command_line("uniquanf confirm-clock [flags]",
                           "Says that the server's wall clock is right although it ran ahead: "
                           "deadlines and deletions that\nwait for it take effect.");
  command_line.flags().Example(
      "uniquanf confirm-clock",
      "After `uniquanf info` said that the clock is ahead, and it is right.");
  command_line.flags().Example("uniquanf confirm-clock -o json", "For programs.");
  if (const auto done = command_line.Parse(arguments)) return *done;
  const auto client = command_line.Connect();
  if (!client.ok()) return command_line.Fail(client.status());
  const auto info = (*client)->ConfirmWallClock();
  if (!info.ok()) return command_line.Fail(info.status());
  return PrintInfo(command_line, *info);
}

int RunInfo(const Arguments& arguments) {
  CommandLine command_line("uniquanf info [flags]", "Shows what the server is and how busy.");
  command_line.flags().Example("uniquanf info", "Version, role, state, how busy.");
  command_line.flags().Example("uniquanf info -o json | jq .num_tasks_ready", "One figure of it.");
  if (const auto done = command_line.Parse(arguments)) return *done;
  const auto client = command_line.Connect();
  if (!client.ok()) return command_line.Fail(client.status());
  const auto info = (*client)->GetServerInfo();
  if (!info.ok()) return command_line.Fail(info.status());
  return PrintInfo(command_line, *info);
}

int RunHealth(const Arguments& arguments) {
  CommandLine command_line("uniquanf health [flags]",
                           "Asks whether the server serves: exit code 0 when it does, 5 when it "
                           "stands by, starts or stops, 4 when it does not answer.");
  command_line.flags().Example("uniquanf health --timeout 2s", "In a probe.");
  command_line.flags().Example("until uniquanf health; do sleep 1; done", "Until it serves.");
  if (const auto done = command_line.Parse(arguments)) return *done;
  const auto client = command_line.Connect();
  if (!client.ok()) return command_line.Fail(client.status());
  const absl::Status status = (*client)->CheckHealth();
  if (!status.ok()) return command_line.Fail(status);
  if (!command_line.PrintDocument({{"healthy", true}})) std::printf("healthy\n");
  return kOk;
}

int RunVersion(const Arguments& arguments) {
  CommandLine command_line("uniquanf version [flags]", "Prints the client's version.");
  command_line.flags().Example("uniquanf version",
                               "The client's; `uniquanf info` has the server's.");
  command_line.flags().Example("uniquanf version -o json", "For programs.");
  if (const auto done = command_line.Parse(arguments)) return *done;
  if (!command_line.PrintDocument({{"version", kSoftwareVersion}})) {
    std::printf("uniquanf %s\n", kSoftwareVersion);
  }
  return kOk;
}

}  // namespace uniquanf::cli
