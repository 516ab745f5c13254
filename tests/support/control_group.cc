#include "tests/support/control_group.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace uniquanf {
namespace {

constexpr char kRoot[] = "/sys/fs/cgroup";
constexpr int64_t kPeriodUs = 100000;

std::string Read(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// This process's group in the hierarchy of a controller ("": version 2), "/" at least.
std::string OwnGroup(const std::string& controller) {
  const std::string text = Read("/proc/self/cgroup");
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<std::string> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    for (const absl::string_view one : absl::StrSplit(fields[1], ',')) {
      if (one == controller) return fields[2];
    }
  }
  return "/";
}

// Some path of the mount may lie above what a namespace shows: then the mount point is used.
std::string Below(const std::string& mount, const std::string& group) {
  const std::string directory = mount + (group == "/" ? "" : group);
  return std::filesystem::exists(directory) ? directory : mount;
}

}  // namespace

ControlGroup::ControlGroup(uint64_t memory_bytes, double num_cpus) {
  const std::string quota = absl::StrCat(static_cast<int64_t>(num_cpus * kPeriodUs));
  const std::string name = absl::StrCat("uniquanf-test-", getpid());
  if (std::filesystem::exists(absl::StrCat(kRoot, "/cgroup.controllers"))) {
    // A group with processes may have no controllers for groups below it, but for the root.
    const std::string directory = absl::StrCat(kRoot, "/", name);
    Set(absl::StrCat(kRoot, "/cgroup.subtree_control"), "+memory +cpu");
    if (!problem_.empty() || !Make(directory)) return;
    Set(directory + "/memory.max", absl::StrCat(memory_bytes));
    Set(directory + "/cpu.max", absl::StrCat(quota, " ", kPeriodUs));
    return;
  }
  for (const char* controller : {"memory", "cpu"}) {
    const std::string directory =
        absl::StrCat(Below(absl::StrCat(kRoot, "/", controller), OwnGroup(controller)), "/", name);
    if (!Make(directory)) return;
    if (absl::string_view(controller) == "memory") {
      Set(directory + "/memory.limit_in_bytes", absl::StrCat(memory_bytes));
    } else {
      Set(directory + "/cpu.cfs_period_us", absl::StrCat(kPeriodUs));
      Set(directory + "/cpu.cfs_quota_us", quota);
    }
  }
}

ControlGroup::~ControlGroup() {
  for (const std::string& directory : directories_) rmdir(directory.c_str());
}

bool ControlGroup::Make(const std::string& directory) {
  if (mkdir(directory.c_str(), 0755) != 0) {
    problem_ = absl::StrCat("cannot make the control group ", directory, ": ", strerror(errno));
    return false;
  }
  directories_.push_back(directory);
  return true;
}

void ControlGroup::Set(const std::string& path, const std::string& value) {
  std::ofstream file(path);
  file << value << std::flush;
  if (!file && problem_.empty()) {
    problem_ = absl::StrCat("cannot write \"", value, "\" to ", path, ": ", strerror(errno));
  }
}

std::vector<std::string> ControlGroup::wrapper() const {
  std::string script;
  for (const std::string& directory : directories_) {
    absl::StrAppend(&script, "echo $$ >'", directory, "/cgroup.procs' && ");
  }
  return {"/bin/sh", "-c", script + "exec \"$@\"", "sh"};
}

uint64_t ControlGroup::peak_memory_bytes() const {
  for (const std::string& directory : directories_) {
    for (const char* file : {"/memory.peak", "/memory.max_usage_in_bytes"}) {
      uint64_t bytes = 0;
      if (absl::SimpleAtoi(Read(directory + file), &bytes)) return bytes;
    }
  }
  return 0;
}

}  // namespace uniquanf
