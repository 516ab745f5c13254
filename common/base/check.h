// UQ_CHECK(condition): ends the process with file, line and condition when it is false. For our own
// bugs only, never for input.
#ifndef UNIQUANF_COMMON_BASE_CHECK_H_
#define UNIQUANF_COMMON_BASE_CHECK_H_

#include <cstdio>
#include <cstdlib>

#define UQ_CHECK(condition)                                                              \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      std::fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                      \
    }                                                                                    \
  } while (false)

#endif  // UNIQUANF_COMMON_BASE_CHECK_H_
