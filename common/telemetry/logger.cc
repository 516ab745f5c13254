#include "common/telemetry/logger.h"

#include <unistd.h>

#include <cerrno>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "common/base/printable.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr absl::string_view kLevels[] = {"debug", "info", "warning", "error"};

class StderrSink : public LogSink {
 public:
  void Write(absl::string_view line) override {
    // One call per line, so that lines of several threads and processes do not mix.
    while (!line.empty()) {
      const ssize_t written = write(2, line.data(), line.size());
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) return;  // nowhere to complain
      line.remove_prefix(static_cast<size_t>(written));
    }
  }
};

void AppendJsonString(absl::string_view text, std::string* out) {
  out->push_back('"');
  for (const char c : text) {
    const unsigned char u = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (c == '\n') {
      out->append("\\n");
    } else if (u < 0x20 || u == 0x7F) {
      absl::StrAppendFormat(out, "\\u%04x", u);
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

std::string JsonString(absl::string_view text) {
  std::string quoted;
  AppendJsonString(text, &quoted);
  return PrintableJson(quoted);
}

void AppendTextValue(absl::string_view text, std::string* out) {
  bool plain = !text.empty();
  for (const char c : text) plain = plain && absl::ascii_isgraph(c) && c != '"' && c != '=';
  if (plain) {
    absl::StrAppend(out, text);
  } else {
    absl::StrAppend(out, JsonString(text));
  }
}

}  // namespace

absl::StatusOr<LogLevel> ParseLogLevel(absl::string_view name) {
  for (int i = 0; i < 4; ++i) {
    if (kLevels[i] == name) return static_cast<LogLevel>(i);
  }
  return InvalidInput("INVALID_FLAG", absl::StrCat("log level \"", name,
                                                   "\" is not debug, info, warning or error"));
}

std::unique_ptr<LogSink> NewStderrSink() { return std::make_unique<StderrSink>(); }

LogField::LogField(absl::string_view k, absl::string_view v) : key(k), value(v) {}
LogField::LogField(absl::string_view k, const std::string& v) : key(k), value(v) {}
LogField::LogField(absl::string_view k, const char* v) : key(k), value(v) {}
LogField::LogField(absl::string_view k, int v) : key(k), value(absl::StrCat(v)), quoted(false) {}
LogField::LogField(absl::string_view k, int64_t v)
    : key(k), value(absl::StrCat(v)), quoted(false) {}
LogField::LogField(absl::string_view k, uint64_t v)
    : key(k), value(absl::StrCat(v)), quoted(false) {}
LogField::LogField(absl::string_view k, double v)
    : key(k), value(absl::StrCat(v)), quoted(!std::isfinite(v)) {}
LogField::LogField(absl::string_view k, bool v)
    : key(k), value(v ? "true" : "false"), quoted(false) {}

void Logger::Log(LogLevel level, absl::string_view event, std::initializer_list<LogField> fields) {
  if (level < min_level_) return;
  const std::string time =
      absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", clock_->Now(), absl::UTCTimeZone());
  std::string line;
  if (format_ == LogFormat::kJson) {
    absl::StrAppend(&line, "{\"time\":\"", time, "\",\"level\":\"",
                    kLevels[static_cast<int>(level)], "\",\"event\":");
    absl::StrAppend(&line, JsonString(event));
    for (const LogField& field : fields) {
      line.push_back(',');
      AppendJsonString(field.key, &line);
      line.push_back(':');
      if (field.quoted) {
        absl::StrAppend(&line, JsonString(RedactCredentials(field.value)));
      } else {
        line.append(field.value);
      }
    }
    line.append("}\n");
  } else {
    absl::StrAppend(&line, time, " ", kLevels[static_cast<int>(level)], " ");
    absl::StrAppend(&line, PrintableText(event));
    for (const LogField& field : fields) {
      absl::StrAppend(&line, " ", field.key, "=");
      AppendTextValue(RedactCredentials(field.value), &line);
    }
    line.push_back('\n');
  }
  sink_->Write(line);
}

}  // namespace uniquanf
