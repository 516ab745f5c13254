// A watched job on the screen: bars on a terminal, lines elsewhere, or JSON lines.
#ifndef UNIQUANF_CLIENT_CLI_WATCH_VIEW_H_
#define UNIQUANF_CLIENT_CLI_WATCH_VIEW_H_

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/cli/command_line.h"
#include "client/include/uniquanf/client.h"
#include "common/base/clock.h"
#include "common/base/terminal_progress.h"

namespace uniquanf::cli {

// From when on a server that does not answer is told of.
inline constexpr absl::Duration kTellSilence = absl::Seconds(4);

// Turns updates into rows and messages. Thread-safe.
class WatchView {
 public:
  // Writes progress to standard error, so that standard output holds nothing but the report.
  WatchView();
  WatchView(int fd, const TerminalProgressOptions& options, const Clock& clock);
  void Update(const JobUpdate& update);
  // How long the server has not been heard; called often. From kTellSilence on what is shown is
  // marked as what was last known, without the time that is left.
  void NoteSilence(absl::Duration silence);
  void Finish();

 private:
  void Announce(const JobUpdate& update) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndSilence() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Mutex mutex_;
  TerminalProgress progress_ ABSL_GUARDED_BY(mutex_);
  JobUpdate last_ ABSL_GUARDED_BY(mutex_);
  bool silent_ ABSL_GUARDED_BY(mutex_) = false;
  bool first_ = true;
  JobState state_ = JobState::kUnknown;
  std::string status_message_;
  std::set<std::string> finished_;                        // tasks announced
  std::set<std::pair<std::string, int>> failures_known_;  // (task, attempt)
};

// The rows that show `update`: the job, then the tasks that run; as they were, when the server has
// not answered for `silence`. Exposed for tests.
std::vector<ProgressRow> WatchRows(const JobUpdate& update,
                                   absl::Duration silence = absl::ZeroDuration());

// Watches until the job is final, prints the report and returns the exit code. Ctrl-C leaves the
// job running and says so.
int WatchToEnd(CommandLine* command_line, const std::string& job);

}  // namespace uniquanf::cli

#endif  // UNIQUANF_CLIENT_CLI_WATCH_VIEW_H_
