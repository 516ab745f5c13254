// One line a record on stderr: text for people, JSON for collectors.
//
// Thread safety: thread-safe; a record is written whole. Lifetime: SetLogOptions is called before
// the first other thread starts (the one piece of process-wide state: stderr is one, too).
#ifndef UNIQUANF_WORKER_AGENT_LOG_H_
#define UNIQUANF_WORKER_AGENT_LOG_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace uniquanf {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
using LogFields = std::vector<std::pair<std::string, std::string>>;  // empty values are left out

struct LogOptions {
  LogLevel min_level = LogLevel::kInfo;
  bool json = false;
};
// "debug", "info", "warning" or "error"; anything else is info.
LogLevel ParseLogLevel(absl::string_view name);
void SetLogOptions(const LogOptions& options);

void Log(LogLevel level, const std::string& message, const LogFields& fields);

// The record that Log writes, without the line's end.
std::string FormatRecord(bool json, absl::Time time, LogLevel level, const std::string& message,
                         const LogFields& fields);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_AGENT_LOG_H_
