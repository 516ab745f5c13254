#include "tests/support/socket_util.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace uniquanf {

int ListenOnLoopback(std::string* address) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  UQ_CHECK(fd >= 0);
  sockaddr_in name = {};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(name);
  UQ_CHECK(bind(fd, reinterpret_cast<sockaddr*>(&name), size) == 0);
  UQ_CHECK(listen(fd, 128) == 0);
  UQ_CHECK(getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) == 0);
  *address = absl::StrCat("127.0.0.1:", ntohs(name.sin_port));
  return fd;
}

int ConnectTo(const std::string& address) {
  const size_t colon = address.rfind(':');
  sockaddr_in name = {};
  name.sin_family = AF_INET;
  name.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(colon + 1))));
  UQ_CHECK(inet_pton(AF_INET, address.substr(0, colon).c_str(), &name.sin_addr) == 1);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  UQ_CHECK(fd >= 0);
  if (connect(fd, reinterpret_cast<sockaddr*>(&name), sizeof(name)) != 0) {
    close(fd);
    return -1;
  }
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return fd;
}

std::string Exchange(const std::string& address, const std::string& text, int timeout_s) {
  const int fd = ConnectTo(address);
  if (fd < 0) return "";
  const timeval timeout = {timeout_s, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
  std::string reply;
  if (send(fd, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size())) {
    char buffer[4096];
    while (true) {
      const ssize_t count = recv(fd, buffer, sizeof(buffer), 0);
      if (count <= 0) break;
      reply.append(buffer, static_cast<size_t>(count));
    }
  }
  close(fd);
  return reply;
}

std::string HttpGet(const std::string& address, const std::string& path) {
  const std::string reply =
      Exchange(address, absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: test\r\n\r\n"));
  const size_t body = reply.find("\r\n\r\n");
  if (reply.size() < 12 || body == std::string::npos) return "";
  return absl::StrCat(reply.substr(9, 3), " ", reply.substr(body + 4));
}

void CloseWithReset(int fd) {
  const linger now = {1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  close(fd);
}

}  // namespace uniquanf
