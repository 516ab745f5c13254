#include "common/base/crash_point.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <atomic>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"

namespace uniquanf::internal {
namespace {

constexpr int kUsageError = 64;

struct Armed {
  std::string name;
  int nth = 1;
};

Armed ReadEnvironment() {
  const char* value = getenv(kCrashPointVariable);
  Armed armed;
  if (value == nullptr) return armed;
  const absl::string_view text(value);
  const size_t colon = text.rfind(':');
  if (colon != absl::string_view::npos && absl::SimpleAtoi(text.substr(colon + 1), &armed.nth)) {
    armed.name = std::string(text.substr(0, colon));
  } else {
    armed.name = std::string(text);
  }
  return armed;
}

// A name that nothing hits would make a test pass that kills nobody.
bool CheckEnvironment() {
  if (getenv(kCrashPointVariable) == nullptr) return false;
  const Armed armed = ReadEnvironment();
  if (IsCrashPoint(armed.name)) return true;
  fprintf(stderr, "%s=%s names no crash point; there are:", kCrashPointVariable,
          getenv(kCrashPointVariable));
  for (const std::string_view known : kCrashPoints) fprintf(stderr, " %s", known.data());
  fprintf(stderr, "\n");
  _exit(kUsageError);
}

}  // namespace

const bool kCrashPointsArmed = CheckEnvironment();

void HitCrashPoint(const char* name) {
  static const Armed* const armed = new Armed(ReadEnvironment());
  static std::atomic<int> num_hits{0};
  if (armed->name != name || num_hits.fetch_add(1) + 1 != armed->nth) return;
  fprintf(stderr, "crash point %s: killing this process\n", name);
  raise(SIGKILL);
}

}  // namespace uniquanf::internal
