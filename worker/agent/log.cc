#include "worker/agent/log.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace uniquanf {
namespace {

LogOptions& Options() {
  static LogOptions options;
  return options;
}

const char* LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "info";
}

// Bytes that are not UTF-8 (a path may hold any) become replacement characters.
std::string Json(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace

LogLevel ParseLogLevel(absl::string_view name) {
  for (const LogLevel level : {LogLevel::kDebug, LogLevel::kWarning, LogLevel::kError}) {
    if (name == LevelName(level)) return level;
  }
  return LogLevel::kInfo;
}

void SetLogOptions(const LogOptions& options) { Options() = options; }

std::string FormatRecord(bool json, absl::Time time, LogLevel level, const std::string& message,
                         const LogFields& fields) {
  const std::string stamp = absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", time, absl::UTCTimeZone());
  if (json) {
    nlohmann::ordered_json record = {
        {"time", stamp}, {"level", LevelName(level)}, {"message", message}};
    for (const auto& [key, value] : fields) {
      if (!value.empty()) record[key] = value;
    }
    return Json(record);
  }
  std::string record = absl::StrCat(stamp, " ", LevelName(level), " ", message);
  for (const auto& [key, value] : fields) {
    if (value.empty()) continue;
    const bool plain = value.find_first_of(" \"\n\t=") == std::string::npos;
    absl::StrAppend(&record, " ", key, "=", plain ? value : Json(value));
  }
  for (char& c : record) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  return record;
}

void Log(LogLevel level, const std::string& message, const LogFields& fields) {
  if (level < Options().min_level) return;
  const std::string line =
      absl::StrCat(FormatRecord(Options().json, absl::Now(), level, message, fields), "\n");
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace uniquanf
