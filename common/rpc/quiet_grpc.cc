#include "common/rpc/quiet_grpc.h"

#include <grpc/support/log.h>

#include "common/base/environment.h"

namespace uniquanf {

void QuietGrpc() {
  if (!EnvironmentVariable("GRPC_VERBOSITY").empty()) return;
  gpr_set_log_function([](gpr_log_func_args*) {});
}

}  // namespace uniquanf
