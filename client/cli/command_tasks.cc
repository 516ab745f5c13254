// What is inside a job: tasks, describe, logs.
#include <cstdio>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "client/cli/command_line.h"
#include "client/cli/events.h"
#include "client/cli/interrupt.h"
#include "client/cli/job_selection.h"
#include "client/cli/output.h"
#include "common/base/status.h"
#include "common/base/terminal_progress.h"

namespace uniquanf::cli {
namespace {

nlohmann::ordered_json TasksJson(const std::vector<Task>& tasks) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const Task& task : tasks) json.push_back(ToJson(task));
  return json;
}

// A task's block error: of the stored layer where the report knows it, else the last one seen.
std::string BlockError(const Job& job, const Task& task) {
  if (task.progress.loss > 0) return absl::StrFormat("%.3e", task.progress.loss);
  if (!job.report.has_value() || task.kind != TaskKind::kLayer) return "";
  for (const LayerReport& layer : job.report->layers) {
    if (layer.layer == task.layer && layer.final_loss > 0) {
      return absl::StrFormat("%.3e", layer.final_loss);
    }
  }
  return "";
}

void PrintTasks(const Job& job, const std::vector<Task>& tasks) {
  std::vector<std::vector<std::string>> rows;
  for (const Task& task : tasks) {
    const bool ended = task.start_time && task.end_time && *task.end_time >= *task.start_time;
    rows.push_back(
        {task.name.substr(task.name.rfind('/') + 1), std::string(TaskStateName(task.state)),
         absl::StrCat(task.attempt), task.progress.phase,
         task.progress.num_steps > 0
             ? absl::StrCat(task.progress.step, "/", task.progress.num_steps)
             : "",
         BlockError(job, task), ended ? ShortDuration(*task.end_time - *task.start_time) : "",
         std::string(absl::StripPrefix(task.worker, "workers/")),
         task.failures.empty()
             ? ""
             : absl::StrCat(task.failures.back().reason, ": ", task.failures.back().message)});
  }
  PrintTable({{"TASK"},
              {"STATE"},
              {"ATTEMPT", Column::kNumber},
              {"PHASE"},
              {"STEP", Column::kNumber},
              {"BLOCK ERROR", Column::kNumber},
              {"TIME", Column::kNumber},
              {"WORKER"},
              {"LAST FAILURE", Column::kLong}},
             std::move(rows));
}

struct JobAndTasks {
  Job job;
  std::vector<Task> tasks;
};

absl::StatusOr<JobAndTasks> Fetch(CommandLine* command_line, const std::string& name) {
  UQ_ASSIGN_OR_RETURN(Client* const client, command_line->Connect());
  JobAndTasks found;
  UQ_ASSIGN_OR_RETURN(found.job, FindJob(client, name));
  UQ_ASSIGN_OR_RETURN(found.tasks, client->ListTasks(found.job.name));
  return found;
}

// Events that have not been shown yet.
class EventLog {
 public:
  explicit EventLog(const CommandLine& command_line) : command_line_(command_line) {}
  void Show(const Job& job, const std::vector<Task>& tasks) {
    for (const JobEvent& event : EventsOf(job, tasks)) {
      if (!shown_.emplace(event.task, event.attempt, event.what).second) continue;
      if (!command_line_.PrintStreamDocument(ToJson(event))) std::puts(EventText(event).c_str());
    }
    std::fflush(stdout);
  }

 private:
  const CommandLine& command_line_;
  std::set<std::tuple<std::string, int, std::string>> shown_;
};

int Follow(CommandLine* command_line, const std::string& name) {
  const auto client = command_line->Connect();
  if (!client.ok()) return command_line->Fail(client.status());
  const auto job = FindJob(*client, name);
  if (!job.ok()) return command_line->Fail(job.status());
  JobWatcher watcher = (*client)->WatchJob(job->name);
  InterruptHandler interrupt([&watcher] { watcher.Cancel(); });
  EventLog log(*command_line);
  while (true) {
    const auto update = watcher.Next();
    if (!update.ok()) {
      return interrupt.interrupted() ? kInterrupted : command_line->Fail(update.status());
    }
    if (!update->has_value()) return kOk;
    log.Show((*update)->job, (*update)->tasks);
  }
}

}  // namespace

int RunTasks(const Arguments& arguments) {
  CommandLine command_line("uniquanf tasks JOB [flags]",
                           "Lists a job's tasks: state, attempt, worker, progress, failures.");
  std::string name;
  command_line.flags().Positional("JOB", true, &name, "the job's name, or its beginning");
  command_line.flags().Example("uniquanf tasks tiny-3bit", "For people.");
  command_line.flags().Example("uniquanf tasks tiny-3bit -o json", "For programs.");
  if (const auto done = command_line.Parse(arguments)) return *done;
  const auto found = Fetch(&command_line, name);
  if (!found.ok()) return command_line.Fail(found.status());
  if (!command_line.PrintDocument({{"tasks", TasksJson(found->tasks)}})) {
    PrintTasks(found->job, found->tasks);
  }
  return kOk;
}

int RunDescribe(const Arguments& arguments) {
  CommandLine command_line("uniquanf describe JOB [flags]",
                           "Shows all there is about a job: settings, tasks, and what happened "
                           "when.");
  std::string name;
  command_line.flags().Positional("JOB", true, &name, "the job's name, or its beginning");
  command_line.flags().Example("uniquanf describe tiny-3bit", "Why does it not get on?");
  command_line.flags().Example("uniquanf describe tiny-3bit -o yaml", "Everything, for a report.");
  if (const auto done = command_line.Parse(arguments)) return *done;
  const auto found = Fetch(&command_line, name);
  if (!found.ok()) return command_line.Fail(found.status());
  const std::vector<JobEvent> events = EventsOf(found->job, found->tasks);
  nlohmann::ordered_json document = ToJson(found->job);
  document["tasks"] = TasksJson(found->tasks);
  document["events"] = nlohmann::ordered_json::array();
  for (const JobEvent& event : events) document["events"].push_back(ToJson(event));
  if (command_line.PrintDocument(document)) return kOk;
  PrintJob(found->job);
  std::puts("\nTasks");
  PrintTasks(found->job, found->tasks);
  std::puts("\nEvents");
  for (const JobEvent& event : events) std::puts(EventText(event).c_str());
  return kOk;
}

int RunLogs(const Arguments& arguments) {
  CommandLine command_line("uniquanf logs JOB [flags]",
                           "Shows what happened to a job, in the order of time: starts, failures "
                           "with their reasons, ends.");
  std::string name;
  bool follow = false;
  command_line.flags().Positional("JOB", true, &name, "the job's name, or its beginning");
  command_line.flags().Bool("follow", &follow, "go on until the job is final, or Ctrl-C");
  command_line.flags().Letter('f');
  command_line.flags().Example("uniquanf logs tiny-3bit", "What happened so far.");
  command_line.flags().Example("uniquanf logs tiny-3bit --follow -o json | jq .message",
                               "A line for each event, as it comes.");
  if (const auto done = command_line.Parse(arguments)) return *done;
  if (follow) return Follow(&command_line, name);
  const auto found = Fetch(&command_line, name);
  if (!found.ok()) return command_line.Fail(found.status());
  EventLog(command_line).Show(found->job, found->tasks);
  return kOk;
}

}  // namespace uniquanf::cli
