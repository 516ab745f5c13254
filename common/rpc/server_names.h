// The names of servers, and the addresses that they have at the moment.
//
// Thread safety: free functions.
#ifndef UNIQUANF_COMMON_RPC_SERVER_NAMES_H_
#define UNIQUANF_COMMON_RPC_SERVER_NAMES_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace uniquanf {

struct HostPort {
  std::string host;  // a name or a numeric address, without brackets
  std::string port;
  std::string ToString() const;  // "host:1", "[::1]:1"
};

// The servers that `target` names: of "a:1,b:2" each, of "a:1" and "dns:///a:1" the one. Empty when
// there is nothing to look up: a numeric address, or a name for gRPC alone ("unix:...").
// Errors: kInvalidArgument (INVALID_TARGET): an element of a list is not HOST:PORT.
absl::StatusOr<std::vector<HostPort>> ParseServers(absl::string_view target);

struct ServerAddress {
  std::string address;  // "10.0.0.1:50051", "[fd00::1]:50051"
  bool is_ipv6 = false;
  friend bool operator==(const ServerAddress&, const ServerAddress&) = default;
};
// The preferred one first; empty: the name is not known, or nobody answers the question now.
using ServerLookup = std::function<std::vector<ServerAddress>(const HostPort&)>;

// Asks the system (hosts file, DNS), anew with every call. Blocks for as long as that takes: many
// seconds where name servers are silent.
std::vector<ServerAddress> LookUpServer(const HostPort& server);

struct StaticTarget {
  std::string target;    // for gRPC: "ipv4:10.0.0.1:1,10.0.0.2:1"
  bool several = false;  // servers, of which one is active
  friend bool operator==(const StaticTarget&, const StaticTarget&) = default;
};
// Of the addresses of each server. Servers without any are left out while there are others; one
// server's IPv4 and IPv6 address are two ways to it, tried in order. nullopt: there are none.
std::optional<StaticTarget> MakeStaticTarget(
    const std::vector<std::vector<ServerAddress>>& addresses_of_servers);

// Whether the environment (grpc_proxy, https_proxy, http_proxy; no_proxy) names an HTTP proxy for
// this host, which then looks names up, and not we.
bool UsesHttpProxy(absl::string_view host);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_RPC_SERVER_NAMES_H_
