#include "common/base/standard_output.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace uniquanf {

int ExitCodeAfterOutput(const char* program, int exit_code) {
  errno = 0;
  const bool flushed = std::fflush(stdout) == 0;
  // Closed from the start (>&-) and never written to is no loss.
  if (flushed && std::ferror(stdout) == 0) return exit_code;
  std::fprintf(stderr, "%s: standard output cannot be written%s%s [OUTPUT_LOST]\n", program,
               errno != 0 ? ": " : "", errno != 0 ? std::strerror(errno) : "");
  return exit_code == 0 ? kOutputLost : exit_code;
}

}  // namespace uniquanf
