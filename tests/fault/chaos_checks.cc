#include "tests/fault/chaos_checks.h"

#include "absl/strings/str_cat.h"

namespace uniquanf {
namespace {

// The server keeps a task's last failures only.
constexpr size_t kMaxFailuresKept = 8;

}  // namespace

std::vector<std::string> CheckTasks(const JobUpdate& update, int max_releases) {
  std::vector<std::string> violations;
  if (update.job.state != JobState::kSucceeded) return violations;
  for (const Task& task : update.tasks) {
    if (task.state != TaskState::kSucceeded) {
      violations.push_back(
          absl::StrCat(task.name, " is ", TaskStateName(task.state), " in a job that succeeded"));
    }
    const int num_failures = static_cast<int>(task.failures.size());
    if (task.failures.size() < kMaxFailuresKept &&
        (task.attempt < 1 + num_failures || task.attempt > 1 + num_failures + max_releases)) {
      violations.push_back(absl::StrCat(task.name, " had ", task.attempt, " attempts, but ",
                                        num_failures, " failures and at most ", max_releases,
                                        " releases"));
    }
  }
  return violations;
}

std::vector<std::string> CheckBytes(const std::map<std::string, std::string>& bytes,
                                    const std::map<std::string, std::string>& reference) {
  std::vector<std::string> violations;
  for (const auto& [path, expected] : reference) {
    const auto it = bytes.find(path);
    if (it == bytes.end()) {
      violations.push_back(path + " is missing");
    } else if (it->second != expected) {
      violations.push_back(path + " differs from the undisturbed run");
    }
  }
  if (bytes.size() != reference.size()) violations.push_back("the artifact has other files");
  return violations;
}

}  // namespace uniquanf
