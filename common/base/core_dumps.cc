#include "common/base/core_dumps.h"

#include <sys/prctl.h>

namespace uniquanf {

void ForbidCoreDumps() { (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); }

}  // namespace uniquanf
