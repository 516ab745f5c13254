#include "tests/fault/task_history.h"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace uniquanf {

void TaskHistory::Add(const JobUpdate& update) {
  absl::MutexLock lock(&mutex_);
  for (const Task& task : update.tasks) {
    const auto it = tasks_.find(task.name);
    if (it != tasks_.end()) {
      const Task& before = it->second;
      if (before.state == TaskState::kSucceeded && losses_.count(task.name) == 0 &&
          (task.state != TaskState::kSucceeded || task.attempt != before.attempt ||
           task.worker != before.worker || task.result_sha256 != before.result_sha256)) {
        violations_.push_back(absl::StrCat(task.name, " had succeeded in attempt ", before.attempt,
                                           " on ", before.worker, " and is now ",
                                           TaskStateName(task.state), ", attempt ", task.attempt,
                                           " on ", task.worker));
      }
      if (task.attempt < before.attempt) {
        violations_.push_back(absl::StrCat(task.name, " went back from attempt ", before.attempt,
                                           " to ", task.attempt));
      }
    }
    tasks_[task.name] = task;
  }
  if (final_state_.has_value() && update.job.state != *final_state_) {
    violations_.push_back(absl::StrCat("the job was ", JobStateName(*final_state_), " and became ",
                                       JobStateName(update.job.state)));
  }
  if (IsFinal(update.job.state)) final_state_ = update.job.state;
}

std::optional<JobState> TaskHistory::final_state() const {
  absl::MutexLock lock(&mutex_);
  return final_state_;
}

std::optional<Task> TaskHistory::FinishedTask() const {
  absl::MutexLock lock(&mutex_);
  for (const auto& [name, task] : tasks_) {
    if (task.state == TaskState::kSucceeded && task.kind != TaskKind::kFinalize) return task;
  }
  return std::nullopt;
}

void TaskHistory::NoteLoss(const std::string& task) {
  absl::MutexLock lock(&mutex_);
  losses_.insert(task);
}

std::set<std::string> TaskHistory::losses() const {
  absl::MutexLock lock(&mutex_);
  return losses_;
}

std::vector<std::string> TaskHistory::violations() const {
  absl::MutexLock lock(&mutex_);
  return violations_;
}

std::vector<std::string> CheckServerLog(const std::string& log,
                                        const std::set<std::string>& losses) {
  std::vector<std::string> violations;
  std::map<std::pair<std::string, int>, std::string> worker_of_attempt;
  std::map<std::string, int> success_of_task;
  std::set<int64_t> epochs;
  for (const absl::string_view line : absl::StrSplit(log, '\n')) {
    const auto record = nlohmann::json::parse(line.begin(), line.end(), nullptr,
                                              /*allow_exceptions=*/false);
    if (!record.is_object()) continue;  // cut off by a kill
    const std::string event = record.value("event", "");
    if (event == "state loaded" && !epochs.insert(record.value("epoch", int64_t{0})).second) {
      violations.push_back(
          absl::StrCat("epoch ", record.value("epoch", int64_t{0}), " was taken twice"));
    }
    if (event != "task leased" && event != "task succeeded") continue;
    const std::string task = absl::StrCat(record.value("job", ""), "/", record.value("task", ""));
    const int attempt = record.value("attempt", 0);
    const std::string worker = record.value("worker", "");
    const auto [given, is_first] = worker_of_attempt.try_emplace({task, attempt}, worker);
    if (given->second != worker) {
      violations.push_back(absl::StrCat(task, " attempt ", attempt, " was given to ", given->second,
                                        " and to ", worker));
    }
    if (event == "task leased") continue;
    const auto [success, is_only] = success_of_task.try_emplace(task, attempt);
    const std::string name =
        absl::StrCat("jobs/", record.value("job", ""), "/tasks/", record.value("task", ""));
    if (success->second != attempt && losses.count(name) == 0) {
      violations.push_back(absl::StrCat(task, " succeeded in attempt ", success->second,
                                        " and again in attempt ", attempt));
    }
  }
  return violations;
}

}  // namespace uniquanf
