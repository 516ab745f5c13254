// A watched job on the screen: bars on a terminal, lines elsewhere, or JSON lines.
#ifndef UNIQUANF_CLIENT_CLI_WATCH_VIEW_H_
#define UNIQUANF_CLIENT_CLI_WATCH_VIEW_H_

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "client/cli/command_line.h"
#include "client/include/uniquanf/client.h"
#include "common/base/terminal_progress.h"

namespace uniquanf::cli {

// The first and the last block error that a layer's task reported while it was watched; 0: none.
struct BlockErrors {
  double first = 0, last = 0;
};

// Turns updates into rows and messages. Not thread-safe.
class WatchView {
 public:
  // Writes progress to standard error, so that standard output holds nothing but the report.
  WatchView();
  void Update(const JobUpdate& update);
  void Finish() { progress_.Finish(); }

 private:
  void Announce(const JobUpdate& update);
  TerminalProgress progress_;
  bool first_ = true;
  JobState state_ = JobState::kUnknown;
  std::string status_message_;
  std::map<std::string, BlockErrors> block_errors_;       // by task
  std::set<std::string> finished_;                        // tasks announced
  std::set<std::pair<std::string, int>> failures_known_;  // (task, attempt)
};

// The rows that show `update`: the job, then the tasks that run. Exposed for tests.
std::vector<ProgressRow> WatchRows(const JobUpdate& update);

// Watches until the job is final, prints the report and returns the exit code. Ctrl-C leaves the
// job running and says so.
int WatchToEnd(CommandLine* command_line, const std::string& job);

}  // namespace uniquanf::cli

#endif  // UNIQUANF_CLIENT_CLI_WATCH_VIEW_H_
