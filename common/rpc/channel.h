// Channels and transport settings, the same for every program. Programs that live for long take
// their channels from a ChannelSource.
//
// Thread safety: free functions; a grpc::Channel is thread-safe.
// Errors: kInvalidArgument (INVALID_TLS_OPTIONS) names the option or the file.
#ifndef UNIQUANF_COMMON_RPC_CHANNEL_H_
#define UNIQUANF_COMMON_RPC_CHANNEL_H_

#include <grpcpp/channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/rpc/server_names.h"
#include "common/rpc/tls_files.h"

namespace uniquanf {

// Largest request (JobService: over 1 MiB is RESOURCE_EXHAUSTED) and largest reply that a client
// takes.
inline constexpr int kMaxRequestBytes = 1 << 20;
inline constexpr int kMaxReplyBytes = 64 << 20;

// PEM files. All empty: no TLS. A CA alone checks the server; certificate and key together also
// prove the client.
struct ClientTlsOptions {
  bool enabled = false;  // TLS with the system's certificate authorities; implied by `ca_file`
  std::string ca_file;
  std::string certificate_file;
  std::string key_file;
  std::string server_name;  // expected in the server's certificate; default: the target's host
  TlsFileNames files() const { return {ca_file, certificate_file, key_file}; }
};

struct ChannelOptions {
  ClientTlsOptions tls;
  absl::Duration keepalive_time = absl::Seconds(30);
  absl::Duration keepalive_timeout = absl::Seconds(10);
  absl::Duration max_reconnect_backoff = absl::Seconds(5);
  int max_reply_bytes = kMaxReplyBytes;
};

// Connects lazily: an unreachable target is an error of the first call. gRPC's own retries are off;
// callers decide what is retried. `target` is host:port, or any gRPC name (dns:///, unix:...), or
// several host:port joined by commas: servers of which one is active. Calls then go to the one
// whose health service says SERVING, so that failover needs no load balancer. The names of a list
// are resolved here, once. Errors: kInvalidArgument (INVALID_TARGET): a list with an element that
// is not host:port, or with TLS but no server name; kUnavailable (UNKNOWN_HOST): no name of a list
// resolves.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(absl::string_view target,
                                                           const ChannelOptions& options = {});

// The parts of MakeChannel.
struct ChannelTarget {
  std::string target;    // for gRPC
  bool several = false;  // servers, of which the one whose health says SERVING gets the calls
  HostPort server;       // what was looked up, when that was one name: the target says it no more
};
// Before a single name has been looked up, which is left to gRPC; a list is looked up here.
absl::StatusOr<ChannelTarget> FirstTarget(absl::string_view target,
                                          const std::vector<HostPort>& servers,
                                          const ClientTlsOptions& tls, const ServerLookup& lookup);
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeChannelCredentials(
    const ClientTlsOptions& options, const TlsContents& contents);
std::shared_ptr<grpc::Channel> ConnectTo(
    const ChannelTarget& target, const ChannelOptions& options,
    const std::shared_ptr<grpc::ChannelCredentials>& credentials);

struct ServerTransportOptions {
  // Clients ping every 30 s; a lower floor keeps impatient proxies from being cut off.
  absl::Duration min_ping_interval = absl::Seconds(10);
  // Connections are renewed, so that load balancers spread them again; streams have the grace to
  // end.
  absl::Duration max_connection_age = absl::Minutes(30);
  absl::Duration max_connection_age_grace = absl::Minutes(5);
  int max_request_bytes = kMaxRequestBytes;
  // What one connection may cost: calls at once, bytes of headers, time to become a connection, and
  // time without a call (clients connect again by themselves).
  int max_concurrent_streams = 256;
  int max_metadata_bytes = 16 << 10;
  absl::Duration handshake_timeout = absl::Seconds(10);
  absl::Duration max_connection_idle = absl::Minutes(5);
};
void ConfigureServerTransport(const ServerTransportOptions& options, grpc::ServerBuilder* builder);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_RPC_CHANNEL_H_
