#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "client/cli/command_line.h"
#include "client/cli/output.h"
#include "common/base/terminal_progress.h"
#include "common/base/version.h"

namespace uniquanf::cli {
namespace {

using WorkerMethod = absl::StatusOr<Worker> (Client::*)(absl::string_view);

int RunOnWorker(const char* name, const char* summary, WorkerMethod method,
                const Arguments& arguments) {
  CommandLine command_line(absl::StrCat("uniquanf ", name, " WORKER [flags]"), summary);
  std::string worker_name;
  command_line.flags().Positional("WORKER", true, &worker_name, "the worker's name");
  if (const auto done = command_line.Parse(arguments)) return *done;
  const auto client = command_line.Connect();
  if (!client.ok()) return command_line.Fail(client.status());
  const auto worker = ((*client)->*method)(worker_name);
  if (!worker.ok()) return command_line.Fail(worker.status());
  if (command_line.json()) {
    PrintJson(ToJson(*worker));
  } else {
    std::printf("%s is %s, %zu tasks running\n", Printable(worker->name).c_str(),
                std::string(WorkerStateName(worker->state)).c_str(), worker->tasks.size());
  }
  return kOk;
}

}  // namespace

int RunDrain(const Arguments& arguments) {
  return RunOnWorker("drain", "Lets a worker finish what it does, take nothing new and exit.",
                     &Client::DrainWorker, arguments);
}
int RunUndrain(const Arguments& arguments) {
  return RunOnWorker("undrain", "Takes back a drain: the worker takes tasks again.",
                     &Client::UndrainWorker, arguments);
}

int RunWorkers(const Arguments& arguments) {
  CommandLine command_line("uniquanf workers [flags]", "Lists the workers and what they do.");
  if (const auto done = command_line.Parse(arguments)) return *done;
  const auto client = command_line.Connect();
  if (!client.ok()) return command_line.Fail(client.status());
  const auto workers = (*client)->ListWorkers();
  if (!workers.ok()) return command_line.Fail(workers.status());
  if (command_line.json()) {
    nlohmann::ordered_json json;
    json["workers"] = nlohmann::ordered_json::array();
    for (const Worker& worker : *workers) json["workers"].push_back(ToJson(worker));
    PrintJson(json);
    return kOk;
  }
  std::vector<std::vector<std::string>> rows = {
      {"WORKER", "STATE", "DEVICE", "MEMORY", "SLOTS", "VERSION", "LAST SEEN", "TASKS"}};
  for (const Worker& worker : *workers) {
    std::string tasks;
    for (const std::string& task : worker.tasks) {
      absl::StrAppend(&tasks, tasks.empty() ? "" : " ", absl::StripPrefix(task, "jobs/"));
    }
    rows.push_back({std::string(absl::StripPrefix(worker.name, "workers/")),
                    std::string(WorkerStateName(worker.state)), worker.device,
                    FormatBytes(worker.memory_bytes), absl::StrCat(worker.num_slots),
                    worker.software_version,
                    worker.last_seen_time == absl::InfinitePast()
                        ? "-"
                        : absl::StrCat(ShortDuration(absl::Now() - worker.last_seen_time), " ago"),
                    tasks});
  }
  PrintTable(rows, {false, false, false, true, true, false, true, false});
  return kOk;
}

int RunInfo(const Arguments& arguments) {
  CommandLine command_line("uniquanf info [flags]", "Shows what the server is and how busy.");
  if (const auto done = command_line.Parse(arguments)) return *done;
  const auto client = command_line.Connect();
  if (!client.ok()) return command_line.Fail(client.status());
  const auto info = (*client)->GetServerInfo();
  if (!info.ok()) return command_line.Fail(info.status());
  if (command_line.json()) {
    PrintJson(ToJson(*info));
    return kOk;
  }
  std::printf("version        %s\nrole           %s\nstate          %s\nobjects        %s\n",
              Printable(info->version).c_str(), info->active ? "active" : "standby",
              Printable(info->state_backend).c_str(), Printable(info->object_root).c_str());
  std::printf("started        %s\njobs           %lld\ntasks ready    %lld\ntasks running  %lld\n",
              FormatLocalTime(info->start_time).c_str(), static_cast<long long>(info->num_jobs),
              static_cast<long long>(info->num_tasks_ready),
              static_cast<long long>(info->num_tasks_leased));
  return kOk;
}

int RunHealth(const Arguments& arguments) {
  CommandLine command_line("uniquanf health [flags]",
                           "Asks whether the server serves: exit code 0 when it does, 5 when it "
                           "stands by, starts or stops, 4 when it does not answer.");
  if (const auto done = command_line.Parse(arguments)) return *done;
  const auto client = command_line.Connect();
  if (!client.ok()) return command_line.Fail(client.status());
  const absl::Status status = (*client)->CheckHealth();
  if (!status.ok()) return command_line.Fail(status);
  if (command_line.json()) {
    PrintJson({{"healthy", true}});
  } else {
    std::printf("healthy\n");
  }
  return kOk;
}

int RunVersion(const Arguments& arguments) {
  CommandLine command_line("uniquanf version [flags]", "Prints the client's version.");
  if (const auto done = command_line.Parse(arguments)) return *done;
  if (command_line.json()) {
    PrintJson({{"version", kSoftwareVersion}});
  } else {
    std::printf("uniquanf %s\n", kSoftwareVersion);
  }
  return kOk;
}

}  // namespace uniquanf::cli
