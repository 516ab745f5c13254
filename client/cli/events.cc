#include "client/cli/events.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/cli/output.h"
#include "common/base/terminal_progress.h"

namespace uniquanf::cli {
namespace {

std::string Worker(absl::string_view name) {
  return std::string(absl::StripPrefix(name, "workers/"));
}

void AddTask(const Task& task, std::vector<JobEvent>* events) {
  JobEvent event;
  event.task = task.name.substr(task.name.rfind('/') + 1);
  for (const TaskFailure& failure : task.failures) {
    JobEvent failed = event;
    failed.time = failure.time;
    failed.attempt = failure.attempt;
    failed.what = "failed";
    failed.worker = Worker(failure.worker);
    failed.reason = failure.reason;
    failed.message = failure.message;
    events->push_back(std::move(failed));
  }
  event.attempt = task.attempt;
  event.worker = Worker(task.worker);
  if (task.start_time.has_value()) {
    JobEvent started = event;
    started.time = *task.start_time;
    started.what = "started";
    events->push_back(std::move(started));
  }
  const bool succeeded = task.state == TaskState::kSucceeded;
  if (task.end_time.has_value() && (succeeded || task.state == TaskState::kCancelled)) {
    event.time = *task.end_time;
    event.what = succeeded ? "succeeded" : "cancelled";
    if (succeeded && task.start_time.has_value() && *task.end_time > *task.start_time) {
      event.message = absl::StrCat("in ", ShortDuration(*task.end_time - *task.start_time));
    }
    events->push_back(std::move(event));
  }
}

}  // namespace

std::vector<JobEvent> EventsOf(const Job& job, const std::vector<Task>& tasks) {
  std::vector<JobEvent> events;
  const auto add = [&events](std::optional<absl::Time> time, std::string what) -> JobEvent& {
    events.push_back({time.value_or(absl::InfinitePast()), "", 0, std::move(what), "", "", ""});
    return events.back();
  };
  if (job.create_time != absl::InfinitePast()) add(job.create_time, "created");
  for (const Task& task : tasks) AddTask(task, &events);
  if (job.end_time.has_value() && IsFinal(job.state)) {
    JobEvent& end = add(job.end_time, absl::AsciiStrToLower(JobStateName(job.state)));
    if (job.error.has_value()) {
      end.reason = job.error->reason;
      end.message = job.error->message;
    }
  }
  std::stable_sort(events.begin(), events.end(),
                   [](const JobEvent& a, const JobEvent& b) { return a.time < b.time; });
  return events;
}

std::string EventText(const JobEvent& event) {
  std::string text = absl::StrCat(FormatLocalTime(event.time), "  ",
                                  event.task.empty() ? "job" : event.task, "  ");
  if (event.attempt > 0) absl::StrAppend(&text, "attempt ", event.attempt, " ");
  absl::StrAppend(&text, event.what);
  if (!event.worker.empty()) absl::StrAppend(&text, " on ", event.worker);
  if (!event.message.empty()) {
    absl::StrAppend(&text, event.what == "succeeded" ? " " : ": ", event.message);
  }
  if (!event.reason.empty()) absl::StrAppend(&text, " [", event.reason, "]");
  return Printable(text);
}

nlohmann::ordered_json ToJson(const JobEvent& event) {
  nlohmann::ordered_json json;
  json["time"] = absl::FormatTime("%Y-%m-%dT%H:%M:%E*SZ", event.time, absl::UTCTimeZone());
  json["task"] = event.task.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(event.task);
  json["attempt"] =
      event.attempt == 0 ? nlohmann::ordered_json() : nlohmann::ordered_json(event.attempt);
  json["event"] = event.what;
  json["worker"] = event.worker;
  json["reason"] = event.reason;
  json["message"] = event.message;
  return json;
}

}  // namespace uniquanf::cli
