#include "common/base/listen_socket.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr int kBacklog = 1024;  // cut to net.core.somaxconn

struct FreeAddrInfo {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};

// errno says why where it is invalid. `dual`: an IPv6 socket that takes IPv4 as well.
UniqueFd Bind(const sockaddr* address, socklen_t size, bool dual) {
  UniqueFd fd(socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.get() < 0) return fd;
  const int on = 1, v6_only = dual ? 0 : 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (address->sa_family == AF_INET6) {
    setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof(v6_only));
  }
  if (bind(fd.get(), address, size) != 0 || listen(fd.get(), kBacklog) != 0) return UniqueFd();
  return fd;
}

int BoundPort(int fd) {
  sockaddr_storage bound = {};
  socklen_t size = sizeof(bound);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size) != 0) return 0;
  return PortOf(bound);
}

absl::StatusOr<ListenSockets> ListenOnEveryAddress(int port, absl::string_view listen) {
  sockaddr_in6 v6 = {};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(static_cast<uint16_t>(port));
  UniqueFd fd = Bind(reinterpret_cast<sockaddr*>(&v6), sizeof(v6), /*dual=*/true);
  if (fd.get() < 0 && errno != EADDRINUSE) {  // a machine without IPv6
    sockaddr_in v4 = {};
    v4.sin_family = AF_INET;
    v4.sin_port = v6.sin6_port;
    fd = Bind(reinterpret_cast<sockaddr*>(&v4), sizeof(v4), /*dual=*/false);
  }
  if (fd.get() < 0) {
    return Unavailable("LISTEN_FAILED",
                       absl::StrCat("cannot listen on ", listen, ": ", std::strerror(errno)));
  }
  ListenSockets result;
  result.port = BoundPort(fd.get());
  result.sockets.push_back(std::move(fd));
  return result;
}

struct ListenName {
  std::string host;
  int port = 0;
  bool every = false;  // every address of the machine
};

absl::StatusOr<ListenName> ParseListen(absl::string_view listen) {
  const size_t colon = listen.rfind(':');
  ListenName result;
  if (colon == absl::string_view::npos ||
      !absl::SimpleAtoi(listen.substr(colon + 1), &result.port) || result.port < 0 ||
      result.port > 65535) {
    return InvalidInput("INVALID_LISTEN",
                        absl::StrCat("\"", listen, "\" is not of the form HOST:PORT"));
  }
  absl::string_view name = listen.substr(0, colon);
  if (absl::ConsumePrefix(&name, "[")) absl::ConsumeSuffix(&name, "]");
  result.host = std::string(name);
  result.every = name.empty() || name == "0.0.0.0" || name == "::";
  return result;
}

using Addresses = std::unique_ptr<addrinfo, FreeAddrInfo>;

absl::StatusOr<Addresses> AddressesOf(const ListenName& name, absl::string_view listen) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (const int error = getaddrinfo(name.host.c_str(), nullptr, &hints, &list); error != 0) {
    return Unavailable("LISTEN_FAILED",
                       absl::StrCat("cannot listen on ", listen, ": ", gai_strerror(error)));
  }
  return Addresses(list);
}

}  // namespace

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

UniqueFd::~UniqueFd() {
  const int saved_errno = errno;
  if (fd_ >= 0) close(fd_);
  errno = saved_errno;
}

int UniqueFd::Release() { return std::exchange(fd_, -1); }

absl::StatusOr<bool> IsLoopbackOnly(absl::string_view listen) {
  UQ_ASSIGN_OR_RETURN(const ListenName name, ParseListen(listen));
  if (name.every) return false;
  UQ_ASSIGN_OR_RETURN(const Addresses addresses, AddressesOf(name, listen));
  for (const addrinfo* entry = addresses.get(); entry != nullptr; entry = entry->ai_next) {
    if (entry->ai_family == AF_INET) {
      const auto* v4 = reinterpret_cast<const sockaddr_in*>(entry->ai_addr);
      if ((ntohl(v4->sin_addr.s_addr) >> 24) != IN_LOOPBACKNET) return false;
    } else if (entry->ai_family != AF_INET6 ||
               !IN6_IS_ADDR_LOOPBACK(
                   &reinterpret_cast<const sockaddr_in6*>(entry->ai_addr)->sin6_addr)) {
      return false;
    }
  }
  return true;
}

absl::StatusOr<ListenSockets> ListenOn(absl::string_view listen) {
  UQ_ASSIGN_OR_RETURN(const ListenName name, ParseListen(listen));
  if (name.every) return ListenOnEveryAddress(name.port, listen);
  UQ_ASSIGN_OR_RETURN(const Addresses addresses, AddressesOf(name, listen));
  ListenSockets result;
  result.port = name.port;
  int error = 0;
  for (addrinfo* entry = addresses.get(); entry != nullptr; entry = entry->ai_next) {
    const uint16_t network_port = htons(static_cast<uint16_t>(result.port));
    if (entry->ai_family == AF_INET) {
      reinterpret_cast<sockaddr_in*>(entry->ai_addr)->sin_port = network_port;
    } else if (entry->ai_family == AF_INET6) {
      reinterpret_cast<sockaddr_in6*>(entry->ai_addr)->sin6_port = network_port;
    }
    UniqueFd fd = Bind(entry->ai_addr, entry->ai_addrlen, /*dual=*/false);
    if (fd.get() < 0) {
      error = errno;
      // A name may have an address of a family that this machine lacks; a port that is taken on one
      // of them is taken.
      if (error == EADDRINUSE) break;
      continue;
    }
    if (result.port == 0) result.port = BoundPort(fd.get());
    result.sockets.push_back(std::move(fd));
  }
  if (result.sockets.empty() || error == EADDRINUSE) {
    return Unavailable("LISTEN_FAILED",
                       absl::StrCat("cannot listen on ", listen, ": ", std::strerror(error)));
  }
  return result;
}

std::string HostOf(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(&address)->sin_addr, text,
              sizeof(text));
    return text;
  }
  const in6_addr& v6 = reinterpret_cast<const sockaddr_in6*>(&address)->sin6_addr;
  if (IN6_IS_ADDR_V4MAPPED(&v6)) {
    inet_ntop(AF_INET, &v6.s6_addr[12], text, sizeof(text));
  } else {
    inet_ntop(AF_INET6, &v6, text, sizeof(text));
  }
  return text;
}

int PortOf(const sockaddr_storage& address) {
  // The port lies at the same place in both families.
  return ntohs(reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
}

}  // namespace uniquanf
