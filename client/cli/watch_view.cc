#include "client/cli/watch_view.h"

#include <unistd.h>

#include <cstdio>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/interrupt.h"
#include "client/cli/job_selection.h"
#include "client/cli/output.h"
#include "common/base/clock.h"
#include "common/base/status.h"

namespace uniquanf::cli {
namespace {

// A label is its row's identity, so each round of a layer has its own.
std::string TaskLabel(const Task& task) {
  switch (task.kind) {
    case TaskKind::kPrepare:
      return "prepare";
    case TaskKind::kLayer:
      return absl::StrCat("layer ", task.layer,
                          task.round == 0 ? "" : absl::StrCat(" round ", task.round + 1));
    case TaskKind::kDistill:
      return absl::StrCat("distill ", task.layer);
    case TaskKind::kFinalize:
      return "finalize";
    case TaskKind::kUnknown:
      break;
  }
  return task.name;
}

std::string TaskDetail(const Task& task) {
  const TaskProgress& progress = task.progress;
  std::string detail = progress.phase.empty() ? "starting" : progress.phase;
  if (progress.loss > 0) absl::StrAppendFormat(&detail, "  block error %.3e", progress.loss);
  if (progress.remaining.has_value()) {
    absl::StrAppend(&detail, "  ", ShortDuration(*progress.remaining), " left");
  }
  if (task.attempt > 1) absl::StrAppend(&detail, "  attempt ", task.attempt);
  return detail;
}

std::string JobDetail(const Job& job) {
  std::string detail = std::string(JobStateName(job.state));
  if (job.progress.num_layers > 0) {
    absl::StrAppend(&detail, "  layers ", job.progress.num_layers_succeeded, "/",
                    job.progress.num_layers);
  }
  if (job.progress.remaining.has_value() && !IsFinal(job.state)) {
    absl::StrAppend(&detail, "  ", ShortDuration(*job.progress.remaining), " left");
  }
  return detail;
}

std::string FinishedText(const Task& task, const BlockErrors& errors) {
  std::string text = absl::StrCat(TaskLabel(task), " done");
  if (errors.last > 0) {
    absl::StrAppend(&text, "  block error ");
    if (errors.first != errors.last) absl::StrAppendFormat(&text, "%.3e -> ", errors.first);
    absl::StrAppendFormat(&text, "%.3e", errors.last);
  }
  if (task.start_time && task.end_time && *task.end_time > *task.start_time) {
    absl::StrAppend(&text, "  in ", ShortDuration(*task.end_time - *task.start_time));
  }
  return text;
}

std::string FailureText(const Task& task, const TaskFailure& failure) {
  const absl::string_view failure_class = FailureClassName(failure.failure_class);
  return absl::StrCat(TaskLabel(task), ": attempt ", failure.attempt, " failed",
                      failure.worker.empty() ? "" : " on ", failure.worker, ": ",
                      failure.message.empty() ? failure_class : failure.message, " [",
                      failure.reason.empty() ? failure_class : failure.reason, "]",
                      task.state == TaskState::kFailed ? "" : "; it will be tried again");
}

}  // namespace

std::vector<ProgressRow> WatchRows(const JobUpdate& update) {
  const Job& job = update.job;
  std::vector<ProgressRow> rows;
  rows.push_back({ShortJobName(job.name),
                  job.state == JobState::kSucceeded ? 1 : std::min(job.progress.fraction, 0.999),
                  JobDetail(job)});
  for (const Task& task : update.tasks) {
    if (task.state != TaskState::kLeased) continue;
    const TaskProgress& progress = task.progress;
    const double fraction =
        progress.num_steps > 0 ? static_cast<double>(progress.step) / progress.num_steps : -1;
    rows.push_back({absl::StrCat("  ", TaskLabel(task)), fraction, TaskDetail(task)});
  }
  return rows;
}

WatchView::WatchView() : progress_(STDERR_FILENO, DetectTerminal(STDERR_FILENO), SystemClock()) {}

// Says what rows cannot: finished tasks, failures, why the job waits. A watch that begins late does
// not recite the past.
void WatchView::Announce(const JobUpdate& update) {
  for (const Task& task : update.tasks) {
    BlockErrors& errors = block_errors_[task.name];
    if (task.progress.loss > 0) {
      if (errors.first == 0) errors.first = task.progress.loss;
      errors.last = task.progress.loss;
    }
    if (task.state == TaskState::kSucceeded && finished_.insert(task.name).second && !first_) {
      progress_.Print(Printable(FinishedText(task, errors)));
    }
    for (const TaskFailure& failure : task.failures) {
      if (failures_known_.emplace(task.name, failure.attempt).second && !first_) {
        progress_.Print(Printable(FailureText(task, failure)));
      }
    }
  }
  const Job& job = update.job;
  if (job.status_message != status_message_ && !job.status_message.empty()) {
    progress_.Print(absl::StrCat(ShortJobName(job.name), ": ", Printable(job.status_message)));
  }
  status_message_ = job.status_message;
  if (job.state != state_ && !first_ && job.state == JobState::kPaused) {
    progress_.Print(absl::StrCat(ShortJobName(job.name), " is paused; continue it with: uniquanf ",
                                 "resume ", ShortJobName(job.name)));
  }
  state_ = job.state;
}

void WatchView::Update(const JobUpdate& update) {
  Announce(update);
  first_ = false;
  progress_.Update(WatchRows(update));
}

namespace {

nlohmann::ordered_json UpdateJson(const JobUpdate& update) {
  nlohmann::ordered_json json;
  json["job"] = ToJson(update.job);
  json["tasks"] = nlohmann::ordered_json::array();
  for (const Task& task : update.tasks) json["tasks"].push_back(ToJson(task));
  return json;
}

// nullopt when the server does not know the name.
std::optional<int> Watch(CommandLine* command_line, Client* client, const std::string& job_name) {
  JobWatcher watcher = client->WatchJob(job_name);
  InterruptHandler interrupt([&watcher] { watcher.Cancel(); });
  WatchView view;
  Job last;
  while (true) {
    const auto update = watcher.Next();
    if (!update.ok()) {
      view.Finish();
      if (interrupt.interrupted()) {
        const std::string name = ShortJobName(job_name);
        std::fprintf(stderr,
                     "\nStopped watching; %s goes on. Watch it again with: uniquanf watch %s\n"
                     "End it with: uniquanf cancel %s\n",
                     name.c_str(), name.c_str(), name.c_str());
        return kInterrupted;
      }
      if (last.name.empty() && ErrorReason(update.status()) == "JOB_NOT_FOUND") return std::nullopt;
      return command_line->Fail(update.status());
    }
    if (!update->has_value()) break;
    if (!command_line->PrintStreamDocument(UpdateJson(**update))) view.Update(**update);
    last = (*update)->job;
  }
  view.Finish();
  if (!command_line->for_programs()) PrintReport(last);
  return ExitCodeFor(last.state);
}

}  // namespace

int WatchToEnd(CommandLine* command_line, const std::string& job_name) {
  const auto client = command_line->Connect();
  if (!client.ok()) return command_line->Fail(client.status());
  std::optional<int> code = Watch(command_line, *client, job_name);
  if (code.has_value()) return *code;
  const auto found = FindJob(*client, job_name);  // the beginning of one name
  if (!found.ok()) return command_line->Fail(found.status());
  code = Watch(command_line, *client, found->name);
  return code.value_or(kNotFound);
}

}  // namespace uniquanf::cli
