// The number of files that this process may have open.
//
// Thread safety: free functions; call RaiseFileLimit at the start, before other threads.
#ifndef UNIQUANF_COMMON_BASE_FILE_LIMIT_H_
#define UNIQUANF_COMMON_BASE_FILE_LIMIT_H_

#include <cstdint>

namespace uniquanf {

struct FileLimit {
  int64_t before = 0;  // the soft limit as it was
  int64_t now = 0;     // and as it is: the hard limit
};

// Raises the soft limit (`ulimit -n`) to the hard one. Where that fails, `now` is what it was.
FileLimit RaiseFileLimit();

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_FILE_LIMIT_H_
