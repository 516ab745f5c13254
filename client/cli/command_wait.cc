#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cli/command_line.h"
#include "client/cli/interrupt.h"
#include "client/cli/job_selection.h"
#include "client/cli/output.h"
#include "common/base/status.h"

namespace uniquanf::cli {
namespace {

// Calls `on_deadline` at `deadline`, unless it is destroyed before.
class Alarm {
 public:
  Alarm(absl::Time deadline, std::function<void()> on_deadline)
      : thread_([this, deadline, on_deadline = std::move(on_deadline)] {
          std::unique_lock<std::mutex> lock(mutex_);
          const bool over =
              condition_.wait_until(lock, absl::ToChronoTime(deadline), [this] { return over_; });
          lock.unlock();
          if (!over) on_deadline();
        }) {}
  ~Alarm() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      over_ = true;
    }
    condition_.notify_all();
    thread_.join();
  }

 private:
  std::mutex mutex_;
  std::condition_variable condition_;
  bool over_ = false;
  std::thread thread_;
};

bool Holds(const std::string& condition, JobState state) {
  if (condition == "done") return IsFinal(state);
  return condition == absl::AsciiStrToLower(JobStateName(state));
}

// The job when the condition holds, or when it cannot come about any more.
absl::StatusOr<Job> WaitFor(Client* client, const std::string& name, const std::string& condition,
                            absl::Time deadline) {
  JobWatcher watcher = client->WatchJob(name);
  const InterruptHandler interrupt([&watcher] { watcher.Cancel(); });
  std::atomic<bool> late{false};
  // An infinite deadline is one that no clock reaches.
  const Alarm alarm(std::min(deadline, absl::Now() + absl::Hours(24 * 365)), [&] {
    late = true;
    watcher.Cancel();
  });
  Job last;
  while (true) {
    const auto update = watcher.Next();
    if (!update.ok()) {
      if (interrupt.interrupted()) return absl::CancelledError("interrupted");
      if (!late) return update.status();
      return MakeError(
          absl::StatusCode::kDeadlineExceeded, "WAIT_TIMED_OUT",
          absl::StrCat(ShortJobName(name), " is ", std::string(JobStateName(last.state)), ", not ",
                       condition, ", and the time given is over; the job goes on"));
    }
    if (!update->has_value()) return last;
    last = (*update)->job;
    if (Holds(condition, last.state)) return last;
  }
}

}  // namespace

int RunWait(const Arguments& arguments) {
  CommandLine command_line("uniquanf wait JOB... [flags]",
                           "Waits until jobs are done, or in the state that --for names; silent, "
                           "for scripts.");
  JobSelection selection;
  std::string condition = "done";
  absl::Duration within = absl::InfiniteDuration();
  AddJobs(&command_line.flags(), &selection);
  command_line.flags().Section("Until when");
  command_line.flags().Choice("for",
                              {"done", "succeeded", "failed", "cancelled", "running", "paused"},
                              &condition, "done: in any final state");
  command_line.flags().Duration("within", &within, absl::ZeroDuration(),
                                "give up after this long, all jobs together (exit code 4)");
  command_line.flags().Example("uniquanf wait tiny-3bit && uniquanf download tiny-3bit",
                               "Exit code 0 only where the job succeeded.");
  command_line.flags().Example("uniquanf wait -l sweep=7 --within 2h", "All jobs of a sweep.");
  command_line.flags().ExitCodes(
      "0: the condition came about, and with --for=done the job succeeded; 1: the job failed; 6: "
      "it "
      "was cancelled; 4: not within the time given");
  if (const auto done = command_line.Parse(arguments)) return *done;
  const absl::Time deadline = absl::Now() + within;
  int exit_code = kOk;
  bool interrupted = false;
  const int errors = ForEachJob(
      &command_line, selection,
      [&](Client* client, const std::string& name) -> absl::StatusOr<nlohmann::ordered_json> {
        if (interrupted) return absl::CancelledError("interrupted");
        const auto job = WaitFor(client, name, condition, deadline);
        interrupted = absl::IsCancelled(job.status());
        UQ_RETURN_IF_ERROR(job.status());
        const bool wished = condition != "done" && Holds(condition, job->state);
        if (exit_code == kOk && !wished) exit_code = ExitCodeFor(job->state);
        if (!wished && condition != "done" && exit_code == kOk) exit_code = kJobFailed;
        if (!command_line.for_programs()) {
          std::printf("%s is %s\n", ShortJobName(job->name).c_str(),
                      std::string(JobStateName(job->state)).c_str());
        }
        return ToJson(*job);
      });
  if (interrupted) return kInterrupted;
  return errors != kOk ? errors : exit_code;
}

}  // namespace uniquanf::cli
