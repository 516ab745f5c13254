// The client's side of the gRPC health protocol (grpc.health.v1.Health/Check), and the check that
// the programs offer to container engines and people: `--health=ADDRESS_OR_URL`.
//
// Thread safety: free functions. Errors: kUnavailable (SERVER_UNREACHABLE): nobody answers in time;
// kFailedPrecondition (NOT_SERVING): answered, and does not serve now.
#ifndef UNIQUANF_COMMON_RPC_HEALTH_CHECK_H_
#define UNIQUANF_COMMON_RPC_HEALTH_CHECK_H_

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/rpc/channel.h"

namespace uniquanf {

// OK: SERVING. A connection is tried until the timeout.
absl::Status CheckHealth(const std::shared_ptr<grpc::Channel>& channel, absl::Duration timeout);

// `target`: http://HOST:PORT/PATH is fetched and must answer 200; anything else is the address of a
// gRPC server, which must be SERVING. Errors: also kInvalidArgument (INVALID_TARGET, and those of
// MakeChannel).
absl::Status ProbeHealth(absl::string_view target, const ClientTlsOptions& tls,
                         absl::Duration timeout);

// ProbeHealth for a command line: prints the outcome and gives the exit code: 0 healthy, 1 not, 2 a
// wrong address.
int RunHealthFlag(const std::string& program, const std::string& target,
                  const ClientTlsOptions& tls);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_RPC_HEALTH_CHECK_H_
