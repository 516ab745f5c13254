#include "common/base/crash_point.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include <atomic>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"

namespace uniquanf::internal {
namespace {

constexpr char kVariable[] = "UNIQUANF_CRASH_POINT";

struct Armed {
  std::string name;
  int nth = 1;
};

Armed ReadEnvironment() {
  const char* value = getenv(kVariable);
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

}  // namespace

const bool kCrashPointsArmed = getenv(kVariable) != nullptr;

void HitCrashPoint(const char* name) {
  static const Armed* const armed = new Armed(ReadEnvironment());
  static std::atomic<int> num_hits{0};
  if (armed->name != name || num_hits.fetch_add(1) + 1 != armed->nth) return;
  fprintf(stderr, "crash point %s: killing this process\n", name);
  raise(SIGKILL);
}

}  // namespace uniquanf::internal
