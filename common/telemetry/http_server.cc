#include "common/telemetry/http_server.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "common/base/listen_socket.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

// What a peer sends after its request is read and dropped for so long, so that closing does not
// reset the connection before the answer has arrived.
constexpr absl::Duration kLinger = absl::Seconds(1);
// Out of file descriptors: the next attempt to accept.
constexpr absl::Duration kAcceptPause = absl::Milliseconds(100);

const char* ReasonPhrase(int code) {
  switch (code) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 431:
      return "Request Header Fields Too Large";
    default:
      return "Service Unavailable";
  }
}

std::string Serialize(const PageResponse& response, bool with_body) {
  return absl::StrCat("HTTP/1.1 ", response.code, " ", ReasonPhrase(response.code),
                      "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8"
                      "\r\nContent-Length: ",
                      response.body.size(), "\r\nConnection: close\r\n\r\n",
                      with_body ? response.body : "");
}

enum class Phase { kReading, kHandling, kWriting, kLingering };

struct Connection {
  UniqueFd fd;
  Phase phase = Phase::kReading;
  absl::Duration deadline;
  std::string received;
  std::string to_send;
  size_t num_sent = 0;
};

}  // namespace

struct HttpServer::Impl {
  HttpServerOptions options;
  Handler handler;
  ListenSockets listening;
  UniqueFd wake;

  // The event thread's own.
  std::map<int64_t, Connection> connections;  // by order of arrival
  int64_t next_id = 0;
  absl::Duration accept_at;

  absl::Mutex mutex;
  bool stop ABSL_GUARDED_BY(mutex) = false;
  struct Work {
    int64_t id;
    PageRequest request;
    bool with_body;
  };
  std::deque<Work> work ABSL_GUARDED_BY(mutex);
  std::deque<std::pair<int64_t, std::string>> done ABSL_GUARDED_BY(mutex);

  std::vector<std::thread> threads;

  static absl::Duration Now() { return SystemClock().Monotonic(); }
  void Wake() {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(wake.get(), &one, sizeof(one));
  }

  void RunHandlers();
  void RunEvents();
  void Accept(absl::Duration now);
  bool MakeRoom();
  // False: the connection is to be closed.
  bool OnEvent(int64_t id, Connection* connection, absl::Duration now);
  bool Read(int64_t id, Connection* connection, absl::Duration now);
  bool Write(Connection* connection, absl::Duration now);
  void TakeRequest(int64_t id, Connection* connection, absl::Duration now);
  void Respond(Connection* connection, std::string bytes, absl::Duration now);
};

void HttpServer::Impl::RunHandlers() {
  const auto has_work = [this]()
                            ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) { return stop || !work.empty(); };
  while (true) {
    Work next;
    {
      absl::MutexLock lock(&mutex);
      mutex.Await(absl::Condition(&has_work));
      if (stop) return;
      next = std::move(work.front());
      work.pop_front();
    }
    std::string bytes = Serialize(handler(next.request), next.with_body);
    {
      absl::MutexLock lock(&mutex);
      done.emplace_back(next.id, std::move(bytes));
    }
    Wake();
  }
}

// Whoever has not sent a request yet goes first, then who does not take its answer.
bool HttpServer::Impl::MakeRoom() {
  if (connections.size() < static_cast<size_t>(options.max_connections)) return true;
  for (const Phase phase : {Phase::kLingering, Phase::kReading, Phase::kWriting}) {
    const auto oldest =
        std::find_if(connections.begin(), connections.end(),
                     [phase](const auto& entry) { return entry.second.phase == phase; });
    if (oldest == connections.end()) continue;
    connections.erase(oldest);
    return true;
  }
  return false;
}

void HttpServer::Impl::Accept(absl::Duration now) {
  for (const UniqueFd& listener : listening.sockets) {
    while (true) {
      UniqueFd fd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (fd.get() < 0) {
        if (errno == EINTR || errno == ECONNABORTED) continue;
        // Level-triggered: polling on would spin while there are no descriptors.
        if (errno != EAGAIN && errno != EWOULDBLOCK) accept_at = now + kAcceptPause;
        break;
      }
      if (!MakeRoom()) continue;
      Connection& connection = connections[next_id++];
      connection.fd = std::move(fd);
      connection.deadline = now + options.request_timeout;
    }
  }
}

void HttpServer::Impl::Respond(Connection* connection, std::string bytes, absl::Duration now) {
  connection->to_send = std::move(bytes);
  connection->phase = Phase::kWriting;
  connection->deadline = now + options.response_timeout;
}

void HttpServer::Impl::TakeRequest(int64_t id, Connection* connection, absl::Duration now) {
  const absl::string_view head = connection->received;
  const std::vector<absl::string_view> words =
      absl::StrSplit(head.substr(0, head.find_first_of("\r\n")), ' ');
  if (words.size() != 3 || !absl::StartsWith(words[2], "HTTP/1.") ||
      !absl::StartsWith(words[1], "/")) {
    return Respond(connection, Serialize({400, "not an HTTP/1.1 request\n"}, true), now);
  }
  if (words[0] != "GET" && words[0] != "HEAD") {
    return Respond(connection, Serialize({405, "only GET and HEAD\n"}, true), now);
  }
  const std::pair<absl::string_view, absl::string_view> target =
      absl::StrSplit(words[1], absl::MaxSplits('?', 1));
  connection->phase = Phase::kHandling;
  absl::MutexLock lock(&mutex);
  work.push_back({id, {std::string(target.first), std::string(target.second)}, words[0] == "GET"});
}

bool HttpServer::Impl::Read(int64_t id, Connection* connection, absl::Duration now) {
  char buffer[2048];
  while (true) {
    const ssize_t count = recv(connection->fd.get(), buffer, sizeof(buffer), 0);
    if (count < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    if (count == 0) return false;
    if (connection->phase != Phase::kReading) continue;
    connection->received.append(buffer, static_cast<size_t>(count));
    if (absl::StrContains(connection->received, "\r\n\r\n")) {
      TakeRequest(id, connection, now);
      return true;
    }
    if (connection->received.size() > options.max_request_bytes) {
      Respond(connection, Serialize({431, "the request is too large\n"}, true), now);
      return true;
    }
  }
}

bool HttpServer::Impl::Write(Connection* connection, absl::Duration now) {
  while (connection->num_sent < connection->to_send.size()) {
    const ssize_t count =
        send(connection->fd.get(), connection->to_send.data() + connection->num_sent,
             connection->to_send.size() - connection->num_sent, MSG_NOSIGNAL);
    if (count < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    connection->num_sent += static_cast<size_t>(count);
  }
  shutdown(connection->fd.get(), SHUT_WR);
  connection->phase = Phase::kLingering;
  connection->deadline = now + kLinger;
  return true;
}

bool HttpServer::Impl::OnEvent(int64_t id, Connection* connection, absl::Duration now) {
  switch (connection->phase) {
    case Phase::kReading:
      if (!Read(id, connection, now)) return false;
      return connection->phase != Phase::kWriting || Write(connection, now);
    case Phase::kLingering:
      return Read(id, connection, now);
    case Phase::kWriting:
      return Write(connection, now);
    case Phase::kHandling:
      return true;
  }
  return true;
}

void HttpServer::Impl::RunEvents() {
  while (true) {
    absl::Duration now = Now();
    std::vector<pollfd> polled = {{wake.get(), POLLIN, 0}};
    const bool accepts = now >= accept_at;
    absl::Duration next = accepts ? absl::InfiniteDuration() : accept_at;
    if (accepts) {
      for (const UniqueFd& fd : listening.sockets) polled.push_back({fd.get(), POLLIN, 0});
    }
    const size_t first = polled.size();
    std::vector<int64_t> ids;
    for (auto& [id, connection] : connections) {
      const bool handling = connection.phase == Phase::kHandling;
      const short events = connection.phase == Phase::kWriting ? POLLOUT : POLLIN;
      // A negative descriptor is ignored: one that hangs up while its answer is made would spin.
      polled.push_back({handling ? -1 : connection.fd.get(), events, 0});
      ids.push_back(id);
      if (!handling) next = std::min(next, connection.deadline);
    }
    int timeout_ms = -1;
    if (next != absl::InfiniteDuration()) {
      timeout_ms =
          static_cast<int>(absl::ToInt64Milliseconds(std::max(next - now, absl::ZeroDuration()))) +
          1;
    }
    poll(polled.data(), polled.size(), timeout_ms);
    now = Now();
    if (polled[0].revents != 0) {
      uint64_t count;
      [[maybe_unused]] const ssize_t taken = read(wake.get(), &count, sizeof(count));
      absl::MutexLock lock(&mutex);
      if (stop) return;
      for (auto& [id, bytes] : done) {
        const auto it = connections.find(id);
        if (it != connections.end()) Respond(&it->second, std::move(bytes), now);
      }
      done.clear();
    }
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto it = connections.find(ids[i]);
      const bool alive = polled[first + i].revents == 0 || OnEvent(ids[i], &it->second, now);
      const bool late = it->second.phase != Phase::kHandling && now >= it->second.deadline;
      if (!alive || late) connections.erase(it);
    }
    if (accepts) Accept(now);
  }
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpServerOptions& options,
                                                              Handler handler) {
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  impl->handler = std::move(handler);
  UQ_ASSIGN_OR_RETURN(impl->listening, ListenOn(options.listen));
  impl->wake = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (impl->wake.get() < 0) return Unavailable("LISTEN_FAILED", "no file descriptor is left");
  impl->accept_at = Impl::Now();
  Impl* const raw = impl.get();
  impl->threads.emplace_back([raw] { raw->RunEvents(); });
  for (int i = 0; i < options.num_threads; ++i) {
    impl->threads.emplace_back([raw] { raw->RunHandlers(); });
  }
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

HttpServer::~HttpServer() {
  {
    absl::MutexLock lock(&impl_->mutex);
    impl_->stop = true;
  }
  impl_->Wake();
  for (std::thread& thread : impl_->threads) thread.join();
}

int HttpServer::port() const { return impl_->listening.port; }

}  // namespace uniquanf
