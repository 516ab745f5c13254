#ifndef UNIQUANF_WORKER_AGENT_LOG_H_
#define UNIQUANF_WORKER_AGENT_LOG_H_
// Placeholder until common/telemetry is merged.
#include <cstdio>
#include <string>
#include <utility>
#include <vector>
namespace uniquanf {
enum class LogLevel { kDebug, kInfo, kWarning, kError };
inline void Log(LogLevel level, const std::string& message,
                const std::vector<std::pair<std::string, std::string>>& fields) {
  std::string line = message;
  for (const auto& [k, v] : fields) line += " " + k + "=" + v;
  std::fprintf(stderr, "%s\n", line.c_str());
}
}  // namespace uniquanf
#endif
