#include "tests/support/failing_http_proxy.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/support/socket_util.h"

namespace uniquanf {
namespace {

constexpr size_t kBufferBytes = 64 << 10;
constexpr size_t kMaxHeadBytes = 64 << 10;
constexpr int kPollMs = 50;

bool SendAll(int fd, const char* data, size_t size) {
  while (size > 0) {
    const ssize_t count = send(fd, data, size, MSG_NOSIGNAL);
    if (count <= 0) return false;
    data += count;
    size -= static_cast<size_t>(count);
  }
  return true;
}

// One side of a connection, with what was read too far.
class Stream {
 public:
  Stream(int fd, const std::atomic<bool>* stop) : fd_(fd), stop_(stop) {}

  // Up to and with the blank line; "" at the end of the connection.
  std::string ReadHead() {
    for (;;) {
      const size_t end = buffer_.find("\r\n\r\n");
      if (end != std::string::npos) return Take(end + 4);
      if (buffer_.size() > kMaxHeadBytes || !Fill()) return "";
    }
  }
  // Passes `size` bytes to `out` (discards them when it is negative); false when either end fails.
  bool Pass(uint64_t size, int out) {
    while (size > 0) {
      if (buffer_.empty() && !Fill()) return false;
      const std::string bytes = Take(std::min<uint64_t>(size, buffer_.size()));
      if (out >= 0 && !SendAll(out, bytes.data(), bytes.size())) return false;
      size -= bytes.size();
    }
    return true;
  }
  // Passes a chunked body, trailer included.
  bool PassChunked(int out) {
    for (;;) {
      size_t end;
      while ((end = buffer_.find("\r\n")) == std::string::npos) {
        if (!Fill()) return false;
      }
      const std::string line = Take(end + 2);
      const uint64_t size = std::strtoull(line.c_str(), nullptr, 16);
      if (out >= 0 && !SendAll(out, line.data(), line.size())) return false;
      if (!Pass(size + 2, out)) return false;
      if (size == 0) return true;
    }
  }
  bool has_bytes() const { return !buffer_.empty(); }
  // Waits until there is something to read from either; true when it is from this one.
  bool WaitBefore(const Stream& other) {
    while (!stop_->load()) {
      if (has_bytes()) return true;
      if (other.has_bytes()) return false;
      pollfd polls[2] = {{fd_, POLLIN, 0}, {other.fd_, POLLIN, 0}};
      poll(polls, 2, kPollMs);
      if (polls[0].revents != 0) return true;
      if (polls[1].revents != 0) return false;
    }
    return false;
  }

 private:
  bool Fill() {
    while (!stop_->load()) {
      pollfd wait = {fd_, POLLIN, 0};
      if (poll(&wait, 1, kPollMs) == 0) continue;
      char bytes[kBufferBytes];
      const ssize_t count = recv(fd_, bytes, sizeof(bytes), 0);
      if (count <= 0) return false;
      buffer_.append(bytes, static_cast<size_t>(count));
      return true;
    }
    return false;
  }
  std::string Take(size_t size) {
    std::string taken = buffer_.substr(0, size);
    buffer_.erase(0, size);
    return taken;
  }

  const int fd_;
  const std::atomic<bool>* const stop_;
  std::string buffer_;
};

// The value of a header, or "".
std::string HeaderOf(const std::string& head, const std::string& name) {
  const std::string lower = absl::AsciiStrToLower(head);
  const size_t start = lower.find(absl::StrCat("\r\n", name, ":"));
  if (start == std::string::npos) return "";
  const size_t value = start + name.size() + 3;
  return std::string(
      absl::StripAsciiWhitespace(head.substr(value, head.find("\r\n", value) - value)));
}

uint64_t LengthOf(const std::string& head) {
  return std::strtoull(HeaderOf(head, "content-length").c_str(), nullptr, 10);
}

// 0 when there is none.
int StatusOf(const std::string& head) {
  const size_t space = head.find(' ');
  return space == std::string::npos ? 0 : std::atoi(head.c_str() + space + 1);
}

std::string Refusal(bool with_body) {
  const std::string body =
      "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>injected</Message></Error>";
  return absl::StrCat("HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: ",
                      body.size(), "\r\nConnection: close\r\n\r\n", with_body ? body : "");
}

}  // namespace

FailingHttpProxy::FailingHttpProxy(const std::string& target, uint64_t seed, double failure_rate)
    : target_(target), failure_rate_(failure_rate), random_(seed) {
  listener_ = ListenOnLoopback(&address_);
  thread_ = std::thread([this] { Run(); });
}

FailingHttpProxy::~FailingHttpProxy() {
  stop_.store(true);
  thread_.join();
  for (Connection& connection : connections_) connection.thread.join();
  close(listener_);
}

FailingHttpProxy::Counts FailingHttpProxy::counts() const {
  absl::MutexLock lock(&mutex_);
  return counts_;
}

int FailingHttpProxy::CountOf(const std::map<std::string, int>& counts,
                              const std::string& path_end) const {
  int num = 0;
  for (const auto& [path, count] : counts) {
    if (absl::EndsWith(path, path_end)) num += count;
  }
  return num;
}

uint64_t FailingHttpProxy::BytesRead(const std::string& part) const {
  absl::MutexLock lock(&mutex_);
  uint64_t num_bytes = 0;
  for (const auto& [path, bytes] : bytes_read_) {
    if (absl::StrContains(path, part)) num_bytes += bytes;
  }
  return num_bytes;
}

int FailingHttpProxy::NumPuts(const std::string& path_end) const {
  absl::MutexLock lock(&mutex_);
  return CountOf(puts_, path_end);
}

int FailingHttpProxy::NumUnknownPuts(const std::string& path_end) const {
  absl::MutexLock lock(&mutex_);
  return CountOf(unknown_puts_, path_end);
}

FailingHttpProxy::Fault FailingHttpProxy::Draw() {
  absl::MutexLock lock(&mutex_);
  ++counts_.requests;
  if (std::uniform_real_distribution<double>(0, 1)(random_) >= failure_rate_.load()) {
    return Fault::kNone;
  }
  switch (random_() % 4) {
    case 0:
      ++counts_.refused;
      return Fault::kRefuse;
    case 1:
      ++counts_.reset;
      return Fault::kReset;
    case 2:
      ++counts_.unanswered;
      return Fault::kUnanswered;
    default:
      ++counts_.truncated;
      return Fault::kTruncate;
  }
}

void FailingHttpProxy::Run() {
  while (!stop_.load()) {
    pollfd wait = {listener_, POLLIN, 0};
    if (poll(&wait, 1, kPollMs) > 0) {
      const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (client >= 0) {
        Connection& connection = connections_.emplace_back();
        connection.client = client;
        connection.thread = std::thread([this, &connection] { Serve(&connection); });
      }
    }
    connections_.remove_if([](Connection& connection) {
      if (!connection.done.load()) return false;
      connection.thread.join();
      return true;
    });
  }
}

void FailingHttpProxy::Serve(Connection* connection) {
  const int client = connection->client;
  const int server = ConnectTo(target_);
  Stream from_client(client, &stop_), from_server(server, &stop_);
  bool reset = server < 0;
  while (server >= 0) {
    const std::string request = from_client.ReadHead();
    if (request.empty()) break;
    const bool is_head = absl::StartsWith(request, "HEAD ");
    const Fault fault = Draw();
    if (fault == Fault::kReset) {
      reset = true;
      break;
    }
    if (fault == Fault::kRefuse) {
      // The body is not read, as by servers that refuse early; reading it slowly to its end would
      // make the refusal arrive in order, which clients must not rely on.
      const std::string refusal = Refusal(!is_head);
      SendAll(client, refusal.data(), refusal.size());
      shutdown(client, SHUT_WR);
      from_client.Pass(LengthOf(request), -1);
      break;
    }
    if (!SendAll(server, request.data(), request.size())) break;
    // A client that expects "100 Continue" sends its body after that answer.
    std::string head;
    if (!HeaderOf(request, "expect").empty() && from_server.WaitBefore(from_client)) {
      head = from_server.ReadHead();
      if (StatusOf(head) == 100) {
        if (!SendAll(client, head.data(), head.size())) break;
        head.clear();
      }
    }
    if (head.empty()) {
      if (!from_client.Pass(LengthOf(request), server)) break;
      head = from_server.ReadHead();
    }
    const int status = StatusOf(head);
    if (head.empty() || status / 100 == 2) {
      const size_t start = request.find(' ') + 1;
      const std::string path = request.substr(start, request.find_first_of(" ?", start) - start);
      absl::MutexLock lock(&mutex_);
      if (absl::StartsWith(request, "PUT ")) ++(head.empty() ? unknown_puts_ : puts_)[path];
      if (absl::StartsWith(request, "GET ")) bytes_read_[path] += LengthOf(head);
    }
    if (head.empty()) break;
    if (fault == Fault::kUnanswered) {
      reset = true;
      break;
    }
    const bool chunked = absl::EqualsIgnoreCase(HeaderOf(head, "transfer-encoding"), "chunked");
    const bool has_body = !is_head && status != 204 && status != 304;
    const uint64_t length = has_body && !chunked ? LengthOf(head) : 0;
    if (fault == Fault::kTruncate) {
      if (SendAll(client, head.data(), length > 0 ? head.size() : head.size() / 2)) {
        from_server.Pass(length / 2, client);
      }
      break;
    }
    if (!SendAll(client, head.data(), head.size())) break;
    if (!(has_body && chunked ? from_server.PassChunked(client)
                              : from_server.Pass(length, client))) {
      break;
    }
    if (absl::EqualsIgnoreCase(HeaderOf(head, "connection"), "close")) break;
  }
  if (server >= 0) close(server);
  if (reset) {
    CloseWithReset(client);
  } else {
    close(client);
  }
  connection->done.store(true);
}

}  // namespace uniquanf
