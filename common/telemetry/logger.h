// Structured logs: one record per line, as JSON or as key=value text, to an injected sink.
//
// Thread safety: thread-safe. Ownership: a Logger borrows its sink and clock. Values are written as
// given except that credentials within URIs ("//user:password@", query strings) are cut out; never
// pass anything else that is secret.
#ifndef UNIQUANF_COMMON_TELEMETRY_LOGGER_H_
#define UNIQUANF_COMMON_TELEMETRY_LOGGER_H_

#include <initializer_list>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/clock.h"
#include "common/base/redact.h"

namespace uniquanf {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
absl::StatusOr<LogLevel> ParseLogLevel(absl::string_view name);

enum class LogFormat { kText, kJson };

class LogSink {
 public:
  virtual ~LogSink() = default;
  // `line` ends with a newline. Thread-safe.
  virtual void Write(absl::string_view line) = 0;
};
// One write(2) per line to file descriptor 2.
std::unique_ptr<LogSink> NewStderrSink();

struct LogField {
  LogField(absl::string_view key, absl::string_view value);
  LogField(absl::string_view key, const std::string& value);
  LogField(absl::string_view key, const char* value);
  LogField(absl::string_view key, int value);
  LogField(absl::string_view key, int64_t value);
  LogField(absl::string_view key, uint64_t value);
  LogField(absl::string_view key, double value);
  LogField(absl::string_view key, bool value);

  std::string key;
  std::string value;
  bool quoted = true;  // false: a number or boolean
};

class Logger {
 public:
  Logger(LogSink* sink, const Clock* clock, LogFormat format, LogLevel min_level)
      : sink_(sink), clock_(clock), format_(format), min_level_(min_level) {}

  // `event`: a few words that stay the same from record to record; what varies goes into fields.
  void Log(LogLevel level, absl::string_view event, std::initializer_list<LogField> fields = {});
  void Debug(absl::string_view event, std::initializer_list<LogField> fields = {}) {
    Log(LogLevel::kDebug, event, fields);
  }
  void Info(absl::string_view event, std::initializer_list<LogField> fields = {}) {
    Log(LogLevel::kInfo, event, fields);
  }
  void Warning(absl::string_view event, std::initializer_list<LogField> fields = {}) {
    Log(LogLevel::kWarning, event, fields);
  }
  void Error(absl::string_view event, std::initializer_list<LogField> fields = {}) {
    Log(LogLevel::kError, event, fields);
  }

 private:
  LogSink* const sink_;
  const Clock* const clock_;
  const LogFormat format_;
  const LogLevel min_level_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_TELEMETRY_LOGGER_H_
