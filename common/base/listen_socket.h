// Listening TCP sockets, for servers that accept by themselves.
//
// Thread safety: free functions; a ListenSockets is used by one thread at a time. Ownership: it
// closes what it holds.
// Errors: kInvalidArgument (INVALID_LISTEN): not HOST:PORT; kUnavailable (LISTEN_FAILED): no
// address of the host can be bound.
#ifndef UNIQUANF_COMMON_BASE_LISTEN_SOCKET_H_
#define UNIQUANF_COMMON_BASE_LISTEN_SOCKET_H_

#include <sys/socket.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace uniquanf {

// A file descriptor with an owner; -1 is none.
class UniqueFd {
 public:
  explicit UniqueFd(int fd = -1) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.Release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept;
  ~UniqueFd();
  int get() const { return fd_; }
  int Release();

 private:
  int fd_;
};

struct ListenSockets {
  std::vector<UniqueFd> sockets;  // non-blocking, one for each address of the host
  int port = 0;                   // the same for all
};

// `listen` is HOST:PORT or [IPV6]:PORT; port 0 takes a free one. An empty host, 0.0.0.0 and [::]
// mean every address of the machine, of both families where it has both.
absl::StatusOr<ListenSockets> ListenOn(absl::string_view listen);
// Whether nobody but this machine reaches what listens there.
absl::StatusOr<bool> IsLoopbackOnly(absl::string_view listen);

// The peer's address without its port, as text; IPv4 inside of IPv6 as IPv4.
std::string HostOf(const sockaddr_storage& address);
int PortOf(const sockaddr_storage& address);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_LISTEN_SOCKET_H_
