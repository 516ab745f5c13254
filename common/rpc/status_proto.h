// absl::Status <-> grpc::Status, the only place where one becomes the other.
//
// On the wire an error is the gRPC code and message, and in grpc-status-details-bin a
// google.rpc.Status with one google.rpc.ErrorInfo{reason, domain "uniquanf"} (AIP-193), and for
// wrong fields (common/base/violations.h) a google.rpc.BadRequest with all of them.
// Thread safety: free functions, no state.
#ifndef UNIQUANF_COMMON_RPC_STATUS_PROTO_H_
#define UNIQUANF_COMMON_RPC_STATUS_PROTO_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace uniquanf {

inline constexpr char kErrorDomain[] = "uniquanf";

// The message is cut to 2000 bytes (HTTP/2 peers refuse larger trailers, and the error would be
// lost with them), and bytes that are not UTF-8 become '?'.
grpc::Status ToGrpcStatus(const absl::Status& status);

// The reason comes back through ErrorReason() (common/base/status.h); it is "" for errors that gRPC
// itself made and for other domains. Unknown codes become kUnknown.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_RPC_STATUS_PROTO_H_
