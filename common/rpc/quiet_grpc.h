// gRPC's own log lines. Thread safety: call it before other threads run.
#ifndef UNIQUANF_COMMON_RPC_QUIET_GRPC_H_
#define UNIQUANF_COMMON_RPC_QUIET_GRPC_H_

namespace uniquanf {

// What goes wrong with a call is in its status, in words; gRPC's log lines about it ("E1126
// chttp2_server.cc") appear only where GRPC_VERBOSITY asks for them.
void QuietGrpc();

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_RPC_QUIET_GRPC_H_
