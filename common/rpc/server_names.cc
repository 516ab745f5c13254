#include "common/rpc/server_names.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

bool IsNumber(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
}

bool IsNumericAddress(const std::string& host) {
  unsigned char bytes[sizeof(in6_addr)];
  return inet_pton(AF_INET, host.c_str(), bytes) == 1 ||
         inet_pton(AF_INET6, host.substr(0, host.find('%')).c_str(), bytes) == 1;
}

// nullopt: not HOST:PORT.
std::optional<HostPort> ParseHostPort(absl::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == absl::string_view::npos || colon == 0 || colon + 1 == text.size() ||
      absl::StrContains(text, '/')) {
    return std::nullopt;
  }
  absl::string_view host = text.substr(0, colon);
  const bool bracketed = absl::ConsumePrefix(&host, "[") && absl::ConsumeSuffix(&host, "]");
  if (host.empty() || (!bracketed && absl::StrContains(host, ':'))) return std::nullopt;
  return HostPort{std::string(host), std::string(text.substr(colon + 1))};
}

// An IPv4 address as an IPv6 one: a target of gRPC has one family.
std::string AsIpv6(const ServerAddress& address) {
  if (address.is_ipv6) return address.address;
  const size_t colon = address.address.rfind(':');
  return absl::StrCat("[::ffff:", address.address.substr(0, colon), "]",
                      address.address.substr(colon));
}

}  // namespace

std::string HostPort::ToString() const {
  return absl::StrContains(host, ':') ? absl::StrCat("[", host, "]:", port)
                                      : absl::StrCat(host, ":", port);
}

absl::StatusOr<std::vector<HostPort>> ParseServers(absl::string_view target) {
  if (!absl::StrContains(target, ',')) {
    absl::ConsumePrefix(&target, "dns:///");
    std::optional<HostPort> server = ParseHostPort(target);
    if (!server.has_value() || !IsNumber(server->port) || IsNumericAddress(server->host)) {
      return std::vector<HostPort>();
    }
    return std::vector<HostPort>{*std::move(server)};
  }
  std::vector<HostPort> servers;
  for (const absl::string_view element : absl::StrSplit(target, ',')) {
    std::optional<HostPort> server = ParseHostPort(element);
    if (!server.has_value()) {
      return InvalidInput("INVALID_TARGET",
                          absl::StrCat("\"", element, "\" in the list of servers \"", target,
                                       "\" is not HOST:PORT"));
    }
    servers.push_back(*std::move(server));
  }
  return servers;
}

std::vector<ServerAddress> LookUpServer(const HostPort& server) {
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  std::vector<ServerAddress> addresses;
  if (getaddrinfo(server.host.c_str(), server.port.c_str(), &hints, &list) != 0) return addresses;
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    char name[NI_MAXHOST] = "";
    const bool is_ipv6 = entry->ai_family == AF_INET6;
    if ((!is_ipv6 && entry->ai_family != AF_INET) ||
        getnameinfo(entry->ai_addr, entry->ai_addrlen, name, sizeof(name), nullptr, 0,
                    NI_NUMERICHOST) != 0) {
      continue;
    }
    addresses.push_back({HostPort{name, server.port}.ToString(), is_ipv6});
  }
  freeaddrinfo(list);
  return addresses;
}

std::optional<StaticTarget> MakeStaticTarget(
    const std::vector<std::vector<ServerAddress>>& addresses_of_servers) {
  const auto count = [](const std::vector<ServerAddress>& addresses, bool ipv6) {
    return std::count_if(addresses.begin(), addresses.end(),
                         [ipv6](const ServerAddress& a) { return a.is_ipv6 == ipv6; });
  };
  std::vector<ServerAddress> chosen;
  StaticTarget target;
  target.several = addresses_of_servers.size() > 1;
  for (const std::vector<ServerAddress>& addresses : addresses_of_servers) {
    const auto num_ipv4 = count(addresses, false), num_ipv6 = count(addresses, true);
    target.several = target.several || std::max(num_ipv4, num_ipv6) > 1;
  }
  for (const std::vector<ServerAddress>& addresses : addresses_of_servers) {
    // Of several servers each is to count once.
    const bool ipv4_only = target.several && count(addresses, false) > 0;
    for (const ServerAddress& address : addresses) {
      if (!ipv4_only || !address.is_ipv6) chosen.push_back(address);
    }
  }
  if (chosen.empty()) return std::nullopt;
  // Name servers turn the order round and round; the servers are the same.
  if (target.several) {
    std::sort(chosen.begin(), chosen.end(),
              [](const ServerAddress& a, const ServerAddress& b) { return a.address < b.address; });
  }
  chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
  const bool ipv6 = count(chosen, true) > 0;
  target.target = ipv6 ? "ipv6:" : "ipv4:";
  absl::StrAppend(&target.target,
                  absl::StrJoin(chosen, ",", [ipv6](std::string* out, const ServerAddress& a) {
                    out->append(ipv6 ? AsIpv6(a) : a.address);
                  }));
  return target;
}

bool UsesHttpProxy(absl::string_view host) {
  const auto set = [](const char* name) {
    const char* const value = std::getenv(name);
    return value == nullptr ? absl::string_view() : absl::string_view(value);
  };
  if (set("grpc_proxy").empty() && set("https_proxy").empty() && set("http_proxy").empty()) {
    return false;
  }
  const absl::string_view none = set("no_grpc_proxy").empty() ? set("no_proxy")  //
                                                              : set("no_grpc_proxy");
  for (const absl::string_view entry : absl::StrSplit(none, ',')) {
    const absl::string_view suffix = absl::StripAsciiWhitespace(entry);
    if (!suffix.empty() && absl::EndsWith(host, suffix)) return false;
  }
  return true;
}

}  // namespace uniquanf
