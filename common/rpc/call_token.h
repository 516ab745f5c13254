// The bearer token of a caller's calls, out of a file that something else renews: read again for
// every call. Never on a command line, nor in a log or an error.
//
// Thread safety: free functions. Errors: kInvalidArgument (INVALID_TOKEN_FILE) names the file.
#ifndef UNIQUANF_COMMON_RPC_CALL_TOKEN_H_
#define UNIQUANF_COMMON_RPC_CALL_TOKEN_H_

#include <grpcpp/client_context.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/rpc/channel.h"

namespace uniquanf {

// "": no token is wanted.
absl::Status AddToken(const std::string& token_file, grpc::ClientContext* context);

// Whether a token may be sent to `target` at all: over TLS, or to this machine. Also reads it once.
// INSECURE_TOKEN: whoever listens on the way could use it.
absl::Status CheckToken(const std::string& token_file, absl::string_view target,
                        const ClientTlsOptions& tls);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_RPC_CALL_TOKEN_H_
