#include "common/base/machine_resources.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace uniquanf {
namespace {

// Files of the kernel have no size to go by; none that is read here is long.
std::optional<std::string> ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// The number that a file consists of. "max" and negative numbers (-1: no limit) are none.
std::optional<uint64_t> ReadNumber(const std::string& path) {
  const std::optional<std::string> text = ReadText(path);
  uint64_t value = 0;
  if (!text.has_value() || !absl::SimpleAtoi(absl::StripAsciiWhitespace(*text), &value)) {
    return std::nullopt;
  }
  return value;
}

// The number after `key` in lines of "KEY VALUE"; /proc/meminfo has "KEY: VALUE kB".
std::optional<uint64_t> ValueOf(absl::string_view text, absl::string_view key) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::ConsumePrefix(&line, key) || line.empty() || (line[0] != ' ' && line[0] != ':')) {
      continue;
    }
    absl::ConsumePrefix(&line, ":");
    const bool kilobytes = absl::ConsumeSuffix(&line, " kB");
    uint64_t value = 0;
    if (!absl::SimpleAtoi(line, &value)) return std::nullopt;
    return kilobytes ? value << 10 : value;
  }
  return std::nullopt;
}

// mountinfo writes space, tab, line feed and backslash as \ooo.
std::string Unescaped(absl::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto octal = [&](size_t at) { return text[at] >= '0' && text[at] <= '7'; };
    if (text[i] == '\\' && i + 3 < text.size() && octal(i + 1) && octal(i + 2) && octal(i + 3)) {
      result += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                  (text[i + 3] - '0'));
      i += 3;
    } else {
      result += text[i];
    }
  }
  return result;
}

// Where a hierarchy of groups is mounted.
struct Mount {
  std::string controllers;  // version 1: the super block's options; version 2: empty
  std::string root;         // the group that the mount point shows
  std::string directory;    // the mount point
};

// Fields of a line: id, parent, device, root, mount point, options, optional fields, "-", type,
// source, options of the super block (proc(5)).
std::vector<Mount> ReadMounts(const std::string& root) {
  std::vector<Mount> mounts;
  const std::string text = ReadText(root + "/proc/self/mountinfo").value_or("");
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ');
    const auto dash = std::find(fields.begin(), fields.end(), "-");
    if (dash - fields.begin() < 6 || fields.end() - dash < 4) continue;
    const absl::string_view type = dash[1];
    if (type != "cgroup" && type != "cgroup2") continue;
    Mount mount;
    if (type == "cgroup") mount.controllers = std::string(dash[3]);
    mount.root = Unescaped(fields[3]);
    mount.directory = root + Unescaped(fields[4]);
    mounts.push_back(std::move(mount));
  }
  return mounts;
}

bool HasController(absl::string_view list, absl::string_view controller) {
  for (const absl::string_view one : absl::StrSplit(list, ',')) {
    if (one == controller) return true;
  }
  return false;
}

// The process's group in one hierarchy and those above it, as far up as the mount shows. Inside a
// container the path may be the host's while the mount shows the container's group alone; then the
// mount point is all that can be seen.
std::vector<std::string> GroupDirectories(const Mount& mount, absl::string_view path) {
  absl::string_view below = path;
  const bool inside = mount.root == "/" || (absl::ConsumePrefix(&below, mount.root) &&
                                            (below.empty() || below[0] == '/'));
  if (!inside || absl::StrContains(below, "..")) below = "";
  std::vector<std::string> directories = {mount.directory};
  std::string directory = mount.directory;
  for (const absl::string_view name : absl::StrSplit(below, '/', absl::SkipEmpty())) {
    absl::StrAppend(&directory, "/", name);
    directories.push_back(directory);
  }
  return directories;
}

// Directories of the groups that a controller's files may lie in. With both versions in use a
// controller is in one of them; the other has none of its files.
std::vector<std::string> DirectoriesOf(const std::string& root, absl::string_view controller) {
  std::vector<std::string> directories;
  const std::vector<Mount> mounts = ReadMounts(root);
  const std::string text = ReadText(root + "/proc/self/cgroup").value_or("");
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    // ID:CONTROLLERS:PATH; version 2 has no controllers.
    const std::vector<absl::string_view> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    const bool version_2 = fields[1].empty();
    if (!version_2 && !HasController(fields[1], controller)) continue;
    for (const Mount& mount : mounts) {
      if (version_2 ? !mount.controllers.empty() : !HasController(mount.controllers, controller)) {
        continue;
      }
      const std::vector<std::string> more = GroupDirectories(mount, fields[2]);
      directories.insert(directories.end(), more.begin(), more.end());
      break;
    }
  }
  return directories;
}

void LimitMemory(const std::string& directory, MachineResources* resources) {
  const bool version_1 = ReadNumber(directory + "/memory.usage_in_bytes").has_value();
  const std::string stat = ReadText(directory + "/memory.stat").value_or("");
  uint64_t limit = std::numeric_limits<uint64_t>::max();
  // Version 1 says "none" with a number beyond all memory. A group above may lie outside the mount;
  // the last one knows the least of them all.
  for (const std::optional<uint64_t> one :
       {ReadNumber(directory + "/memory.max"), ReadNumber(directory + "/memory.high"),
        ReadNumber(directory + "/memory.limit_in_bytes"),
        ValueOf(stat, "hierarchical_memory_limit")}) {
    if (one.has_value()) limit = std::min(limit, *one);
  }
  if (limit < resources->memory_bytes) {
    resources->memory_bytes = limit;
    resources->memory_is_limited = true;
  }
  const std::optional<uint64_t> used =
      ReadNumber(directory + (version_1 ? "/memory.usage_in_bytes" : "/memory.current"));
  if (!used.has_value() || limit == std::numeric_limits<uint64_t>::max()) return;
  uint64_t reclaimable = 0;
  for (const char* file : {"inactive_file", "active_file"}) {
    reclaimable += ValueOf(stat, absl::StrCat(version_1 ? "total_" : "", file)).value_or(0);
  }
  const uint64_t held = *used - std::min(*used, reclaimable);
  resources->available_memory_bytes =
      std::min(resources->available_memory_bytes, limit - std::min(limit, held));
}

// "0-3,7": processors; 0 for what is no such list.
int CountCpus(absl::string_view list) {
  int num_cpus = 0;
  for (const absl::string_view range : absl::StrSplit(list, ',', absl::SkipEmpty())) {
    const std::vector<absl::string_view> ends = absl::StrSplit(range, '-');
    int first = 0, last = 0;
    if (ends.size() > 2 || !absl::SimpleAtoi(ends.front(), &first) ||
        !absl::SimpleAtoi(ends.back(), &last) || first < 0 || last < first) {
      return 0;
    }
    num_cpus += last - first + 1;
  }
  return num_cpus;
}

// `limits`: /proc/self/limits, with a line "Max address space  SOFT  HARD  bytes".
void LimitAddressSpace(absl::string_view limits, absl::string_view taken_pages,
                       MachineResources* resources) {
  constexpr absl::string_view kName = "Max address space";
  const size_t at = limits.find(kName);
  uint64_t limit = 0, taken = 0;
  if (at == absl::string_view::npos || !absl::SimpleAtoi(taken_pages, &taken)) return;
  const absl::string_view line =
      absl::StripLeadingAsciiWhitespace(limits.substr(at + kName.size()));
  if (!absl::SimpleAtoi(line.substr(0, line.find(' ')), &limit)) return;  // "unlimited"
  taken *= static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t free = limit - std::min(limit, taken);
  resources->free_address_space_bytes = free;
  if (free < resources->available_memory_bytes || limit < resources->memory_bytes) {
    resources->memory_is_limited = true;
  }
  resources->memory_bytes = std::min(resources->memory_bytes, limit);
  resources->available_memory_bytes = std::min(resources->available_memory_bytes, free);
}

void LimitCpus(int64_t quota, int64_t period, MachineResources* resources) {
  if (quota <= 0 || period <= 0) return;
  const int64_t rounded_up = quota / period + (quota % period != 0 ? 1 : 0);
  resources->num_cpus = static_cast<int>(std::min<int64_t>(resources->num_cpus, rounded_up));
}

int AffinityCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  // Fails beyond 1,024 processors.
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return CPU_SETSIZE;
  return std::max(1, CPU_COUNT(&set));
}

}  // namespace

MachineResources ReadMachineResources(const std::string& root) {
  MachineResources resources;
  const std::string memory = ReadText(root + "/proc/meminfo").value_or("");
  resources.memory_bytes = ValueOf(memory, "MemTotal").value_or(0);
  resources.available_memory_bytes =
      ValueOf(memory, "MemAvailable").value_or(ValueOf(memory, "MemFree").value_or(0));
  // In pages: address space, resident memory, of that shared.
  const std::string sizes = ReadText(root + "/proc/self/statm").value_or("");
  const std::vector<absl::string_view> pages = absl::StrSplit(sizes, ' ');
  uint64_t resident = 0, shared = 0;
  if (pages.size() > 2 && absl::SimpleAtoi(pages[1], &resident) &&
      absl::SimpleAtoi(pages[2], &shared) && shared <= resident) {
    resources.own_memory_bytes = (resident - shared) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  }
  for (const std::string& directory : DirectoriesOf(root, "memory")) {
    LimitMemory(directory, &resources);
  }
  LimitAddressSpace(ReadText(root + "/proc/self/limits").value_or(""),
                    pages.empty() ? "" : pages[0], &resources);
  resources.num_cpus = AffinityCpus();
  for (const std::string& directory : DirectoriesOf(root, "cpu")) {
    const std::string text = ReadText(directory + "/cpu.max").value_or("");
    const std::vector<absl::string_view> fields =
        absl::StrSplit(absl::StripAsciiWhitespace(text), ' ');
    int64_t quota = 0, period = 0;  // "max 100000" is no limit
    if (fields.size() == 2 && absl::SimpleAtoi(fields[0], &quota) &&
        absl::SimpleAtoi(fields[1], &period)) {
      LimitCpus(quota, period, &resources);
    }
    LimitCpus(static_cast<int64_t>(ReadNumber(directory + "/cpu.cfs_quota_us").value_or(0)),
              static_cast<int64_t>(ReadNumber(directory + "/cpu.cfs_period_us").value_or(0)),
              &resources);
  }
  for (const std::string& directory : DirectoriesOf(root, "cpuset")) {
    for (const char* file : {"/cpuset.cpus.effective", "/cpuset.effective_cpus", "/cpuset.cpus"}) {
      const int num_cpus =
          CountCpus(absl::StripAsciiWhitespace(ReadText(directory + file).value_or("")));
      if (num_cpus > 0) resources.num_cpus = std::min(resources.num_cpus, num_cpus);
    }
  }
  return resources;
}

}  // namespace uniquanf
