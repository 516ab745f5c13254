#include "common/base/file_limit.h"

#include <sys/resource.h>

#include <algorithm>
#include <limits>

namespace uniquanf {
namespace {

int64_t Clamped(rlim_t value) {
  return static_cast<int64_t>(
      std::min<rlim_t>(value, static_cast<rlim_t>(std::numeric_limits<int32_t>::max())));
}

}  // namespace

FileLimit RaiseFileLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return {1024, 1024};
  const int64_t before = Clamped(limit.rlim_cur);
  const rlim_t soft = limit.rlim_cur;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = soft;
  return {before, Clamped(limit.rlim_cur)};
}

}  // namespace uniquanf
