#include "worker/agent/http_endpoint.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/check.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr size_t kMaxRequestBytes = 8192;
constexpr int kClientTimeoutSeconds = 2;  // a client that says nothing must not keep others out

const char* ReasonPhrase(int code) {
  switch (code) {
    case 200:
      return "OK";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 503:
      return "Service Unavailable";
    default:
      return "Bad Request";
  }
}

// The request's head, or what came of it when the client is slow, gone or too wordy.
std::string ReadHead(int connection) {
  std::string head;
  char buffer[1024];
  while (head.size() < kMaxRequestBytes && head.find("\r\n\r\n") == std::string::npos) {
    const ssize_t n = recv(connection, buffer, sizeof(buffer), 0);
    if (n <= 0) break;
    head.append(buffer, static_cast<size_t>(n));
  }
  return head;
}

void WriteAll(int connection, absl::string_view data) {
  while (!data.empty()) {
    const ssize_t n = send(connection, data.data(), data.size(), MSG_NOSIGNAL);
    if (n <= 0) return;
    data.remove_prefix(static_cast<size_t>(n));
  }
}

}  // namespace

HttpEndpoint::HttpEndpoint(std::map<std::string, Handler> handlers)
    : handlers_(std::move(handlers)) {}

HttpEndpoint::~HttpEndpoint() {
  if (thread_.joinable()) {
    close(stop_pipe_[1]);
    thread_.join();
    close(stop_pipe_[0]);
  }
  if (listener_ >= 0) close(listener_);
}

absl::Status HttpEndpoint::Start(absl::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos) {
    return InvalidInput("INVALID_FLAG",
                        absl::StrCat("\"", address, "\" is no address to listen on: HOST:PORT"));
  }
  const std::string host(address.substr(0, colon));
  const std::string port(address.substr(colon + 1));
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const bool everywhere = host.empty() || host == "*";
  const int error = getaddrinfo(everywhere ? nullptr : host.c_str(), port.c_str(), &hints, &found);
  if (error != 0) {
    return InvalidInput("INVALID_FLAG",
                        absl::StrCat("cannot listen on \"", address, "\": ", gai_strerror(error)));
  }
  int last_errno = 0;
  for (const addrinfo* candidate = found; candidate != nullptr; candidate = candidate->ai_next) {
    const int fd = socket(candidate->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, candidate->ai_addr, candidate->ai_addrlen) == 0 && listen(fd, 16) == 0) {
      listener_ = fd;
      break;
    }
    last_errno = errno;
    close(fd);
  }
  freeaddrinfo(found);
  if (listener_ < 0) {
    return Unavailable("LISTEN_FAILED", absl::StrCat("cannot listen on \"", address,
                                                     "\": ", std::strerror(last_errno)));
  }
  sockaddr_storage bound = {};
  socklen_t length = sizeof(bound);
  getsockname(listener_, reinterpret_cast<sockaddr*>(&bound), &length);
  port_ = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                            : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
  UQ_CHECK(pipe2(stop_pipe_, O_CLOEXEC) == 0);
  thread_ = std::thread([this] { Loop(); });
  return absl::OkStatus();
}

void HttpEndpoint::Loop() {
  while (true) {
    pollfd wanted[2] = {{listener_, POLLIN, 0}, {stop_pipe_[0], POLLIN, 0}};
    if (poll(wanted, 2, -1) < 0 && errno != EINTR) return;
    if (wanted[1].revents != 0) return;
    if (wanted[0].revents == 0) continue;
    const int connection = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (connection < 0) continue;
    const timeval timeout = {kClientTimeoutSeconds, 0};
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    Serve(connection);
    close(connection);
  }
}

void HttpEndpoint::Serve(int connection) {
  const std::string head = ReadHead(connection);
  const std::vector<std::string> words =
      absl::StrSplit(head.substr(0, head.find("\r\n")), absl::MaxSplits(' ', 2));
  HttpResponse response;
  if (words.size() < 3) {
    response = {400, "malformed request\n"};
  } else if (words[0] != "GET") {
    response = {405, "only GET\n"};
  } else {
    const auto it = handlers_.find(words[1].substr(0, words[1].find('?')));
    response = it == handlers_.end() ? HttpResponse{404, "no such page\n"} : it->second();
  }
  WriteAll(connection, absl::StrCat("HTTP/1.1 ", response.code, " ", ReasonPhrase(response.code),
                                    "\r\nContent-Type: ", response.content_type,
                                    "\r\nContent-Length: ", response.body.size(),
                                    "\r\nConnection: close\r\n\r\n", response.body));
}

}  // namespace uniquanf
