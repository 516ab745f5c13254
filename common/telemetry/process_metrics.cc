#include "common/telemetry/process_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <system_error>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/version.h"

namespace uniquanf {
namespace {

prometheus::Gauge& MakeGauge(prometheus::Registry* registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(*registry).Add({});
}

std::string ReadText(const char* path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

double Seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

// Unix time at which the process began: /proc/self/stat's field 22 counts ticks since the system's
// start, which /proc/stat has as "btime". The second field, the program's name, may hold spaces and
// parentheses.
std::optional<double> StartTime() {
  const std::string stat = ReadText("/proc/self/stat");
  const size_t end_of_name = stat.rfind(')');
  if (end_of_name == std::string::npos) return std::nullopt;
  const std::vector<absl::string_view> fields =
      absl::StrSplit(absl::string_view(stat).substr(end_of_name + 1), ' ', absl::SkipEmpty());
  constexpr size_t kField = 22 - 3;  // the first one after the name is number 3
  int64_t ticks = 0, boot = 0;
  if (fields.size() <= kField || !absl::SimpleAtoi(fields[kField], &ticks)) return std::nullopt;
  const std::string system = ReadText("/proc/stat");
  for (absl::string_view line : absl::StrSplit(system, '\n')) {
    if (!absl::ConsumePrefix(&line, "btime ") || !absl::SimpleAtoi(line, &boot)) continue;
    return static_cast<double>(boot) +
           static_cast<double>(ticks) / static_cast<double>(sysconf(_SC_CLK_TCK));
  }
  return std::nullopt;
}

}  // namespace

ProcessMetrics::ProcessMetrics(prometheus::Registry* registry, const std::string& program)
    : cpu_seconds_(prometheus::BuildCounter()
                       .Name("process_cpu_seconds_total")
                       .Help("Processor time, user and system")
                       .Register(*registry)
                       .Add({})),
      resident_bytes_(MakeGauge(registry, "process_resident_memory_bytes", "Memory in use")),
      virtual_bytes_(
          MakeGauge(registry, "process_virtual_memory_bytes", "Address space that is mapped")),
      open_files_(MakeGauge(registry, "process_open_fds", "Open file descriptors")),
      max_files_(MakeGauge(registry, "process_max_fds", "File descriptors that may be open")),
      start_time_(MakeGauge(registry, "process_start_time_seconds",
                            "Start of the process, in seconds since 1970")) {
  prometheus::BuildGauge()
      .Name("uniquanf_build_info")
      .Help("1; its labels say which program of which version this is")
      .Register(*registry)
      .Add({{"program", program},
            {"version", kSoftwareVersion},
            {"protocol", absl::StrCat(kProtocolVersion)}})
      .Set(1);
  if (const std::optional<double> start = StartTime()) start_time_.Set(*start);
  Update();
}

void ProcessMetrics::Update() {
  absl::MutexLock lock(&mutex_);
  rusage usage = {};
  if (getrusage(RUSAGE_SELF, &usage) == 0) {
    const double now = Seconds(usage.ru_utime) + Seconds(usage.ru_stime);
    cpu_seconds_.Increment(std::max(0.0, now - cpu_seconds_.Value()));
  }
  // In pages: address space, resident memory.
  int64_t virtual_pages = 0, resident_pages = 0;
  const std::vector<std::string> sizes = absl::StrSplit(ReadText("/proc/self/statm"), ' ');
  if (sizes.size() > 1 && absl::SimpleAtoi(sizes[0], &virtual_pages) &&
      absl::SimpleAtoi(sizes[1], &resident_pages)) {
    const auto page_bytes = static_cast<double>(sysconf(_SC_PAGESIZE));
    virtual_bytes_.Set(static_cast<double>(virtual_pages) * page_bytes);
    resident_bytes_.Set(static_cast<double>(resident_pages) * page_bytes);
  }
  std::error_code error;
  int64_t num_files = -1;  // the directory that is being read does not count
  for (std::filesystem::directory_iterator file("/proc/self/fd", error), end; !error && file != end;
       file.increment(error)) {
    ++num_files;
  }
  if (!error) open_files_.Set(static_cast<double>(num_files));
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    max_files_.Set(static_cast<double>(limit.rlim_cur));
  }
}

}  // namespace uniquanf
