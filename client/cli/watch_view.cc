#include "client/cli/watch_view.h"

#include <unistd.h>

#include <cstdio>
#include <optional>
#include <thread>
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

const char* LossName(const Task& task) {
  return task.kind == TaskKind::kDistill ? "divergence" : "block error";
}

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
  if (progress.loss > 0) {
    absl::StrAppendFormat(&detail, "  %s %.3e", LossName(task), progress.loss);
  }
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

std::string FinishedText(const Task& task) {
  std::string text = absl::StrCat(TaskLabel(task), " done");
  if (task.initial_loss > 0) {
    absl::StrAppendFormat(&text, "  %s %.3e -> %.3e", LossName(task), task.initial_loss,
                          task.final_loss);
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

// Of the task's time; of its phase's steps, where the server does not know.
double FractionOf(const Task& task) {
  const TaskProgress& progress = task.progress;
  if (progress.fraction > 0) return progress.fraction;
  if (progress.num_steps <= 0) return -1;
  return static_cast<double>(progress.step) / static_cast<double>(progress.num_steps);
}

}  // namespace

std::vector<ProgressRow> WatchRows(const JobUpdate& update, absl::Duration silence) {
  const Job& job = update.job;
  std::vector<ProgressRow> rows;
  if (silence > absl::ZeroDuration()) {
    rows.push_back(
        {ShortJobName(job.name), std::min(job.progress.fraction, 0.999),
         absl::StrCat("no answer from the server for ", ShortDuration(silence), ", trying again"),
         true});
    for (const Task& task : update.tasks) {
      if (task.state != TaskState::kLeased) continue;
      rows.push_back(
          {absl::StrCat("  ", TaskLabel(task)), FractionOf(task), task.progress.phase, true});
    }
    return rows;
  }
  rows.push_back({ShortJobName(job.name),
                  job.state == JobState::kSucceeded ? 1 : std::min(job.progress.fraction, 0.999),
                  JobDetail(job)});
  for (const Task& task : update.tasks) {
    if (task.state != TaskState::kLeased) continue;
    rows.push_back({absl::StrCat("  ", TaskLabel(task)), FractionOf(task), TaskDetail(task)});
  }
  return rows;
}

WatchView::WatchView() : WatchView(STDERR_FILENO, DetectTerminal(STDERR_FILENO), SystemClock()) {}

WatchView::WatchView(int fd, const TerminalProgressOptions& options, const Clock& clock)
    : progress_(fd, options, clock) {}

// Says what rows cannot: finished tasks, failures, why the job waits. A watch that begins late does
// not recite the past.
void WatchView::Announce(const JobUpdate& update) {
  for (const Task& task : update.tasks) {
    if (task.state == TaskState::kSucceeded && finished_.insert(task.name).second && !first_) {
      progress_.Print(Printable(FinishedText(task)));
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
  absl::MutexLock lock(&mutex_);
  EndSilence();
  Announce(update);
  first_ = false;
  last_ = update;
  progress_.Update(WatchRows(update));
}

void WatchView::NoteSilence(absl::Duration silence) {
  absl::MutexLock lock(&mutex_);
  if (first_) return;  // nothing is shown yet
  if (silence < kTellSilence) {
    if (silent_) {
      EndSilence();
      progress_.Update(WatchRows(last_));
    }
    return;
  }
  if (!silent_) {
    silent_ = true;
    progress_.Print(absl::StrCat(ShortJobName(last_.job.name), ": no answer from the server for ",
                                 ShortDuration(silence), ", trying again"));
  }
  progress_.Update(WatchRows(last_, silence));
}

void WatchView::EndSilence() {
  if (!silent_) return;
  silent_ = false;
  progress_.Print(absl::StrCat(ShortJobName(last_.job.name), ": the server answers again"));
}

void WatchView::Finish() {
  absl::MutexLock lock(&mutex_);
  progress_.Finish();
}

namespace {

nlohmann::ordered_json UpdateJson(const JobUpdate& update) {
  nlohmann::ordered_json json;
  json["job"] = ToJson(update.job);
  json["tasks"] = nlohmann::ordered_json::array();
  for (const Task& task : update.tasks) json["tasks"].push_back(ToJson(task));
  return json;
}

// Tells the view, while it lives, how long the server has been silent: Next blocks meanwhile.
class SilenceTeller {
 public:
  SilenceTeller(const JobWatcher* watcher, WatchView* view)
      : thread_([this, watcher, view] {
          absl::MutexLock lock(&mutex_);
          while (!mutex_.AwaitWithTimeout(absl::Condition(&stop_), absl::Milliseconds(500))) {
            view->NoteSilence(watcher->Silence());
          }
        }) {}
  ~SilenceTeller() {
    {
      absl::MutexLock lock(&mutex_);
      stop_ = true;
    }
    thread_.join();
  }

 private:
  absl::Mutex mutex_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

// nullopt when the server does not know the name.
std::optional<int> Watch(CommandLine* command_line, Client* client, const std::string& job_name) {
  JobWatcher watcher = client->WatchJob(job_name);
  InterruptHandler interrupt([&watcher] { watcher.Cancel(); });
  WatchView view;
  const SilenceTeller teller(&watcher, &view);
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
