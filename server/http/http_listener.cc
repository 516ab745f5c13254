#include "server/http/http_listener.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "common/base/status.h"
#include "server/http/error_page.h"
#include "server/http/tls_context.h"

namespace uniquanf::server {
namespace {

// Out of file descriptors or threads: the next attempt to accept.
constexpr int kAcceptPauseMs = 100;
// An answer's end is read and dropped for so long, so that closing does not reset the connection
// before the answer has arrived.
constexpr int kLingerMs = 500;

// The library's reading of a head and writing of an answer, without its listening, its threads and
// its routes. Bodies are read by the handler.
class Protocol final : public httplib::Server {
 public:
  using Answer = std::function<void(const httplib::Request&, httplib::Response*)>;

  Protocol() {
    svr_sock_ = 0;  // else it takes itself for stopped, and ends answers in pieces
    set_keep_alive_timeout(30);
    set_pre_routing_handler([](const httplib::Request& request, httplib::Response& response) {
      (*current)(request, &response);
      return HandlerResponse::Handled;
    });
    set_expect_100_continue_handler(
        [](const httplib::Request&, httplib::Response&) { return 100; });
    // What the library itself refuses.
    set_error_handler([](const httplib::Request&, httplib::Response& response) {
      if (!response.body.empty() || response.content_length_ > 0 ||
          response.content_provider_ != nullptr) {
        return;
      }
      response.set_content(StatusJson({grpc::StatusCode::INVALID_ARGUMENT,
                                       absl::StrCat("HTTP error ", response.status,
                                                    ": the head of the request is malformed, too "
                                                    "large, or did not arrive in time")}),
                           "application/json");
    });
    set_exception_handler([](const httplib::Request&, httplib::Response& response,
                             std::exception_ptr) { response.status = 500; });
  }
  ~Protocol() override { Stop(); }
  // Answers in pieces end.
  void Stop() { svr_sock_ = -1; }

  // False: the connection cannot be used any more.
  bool Serve(HttpConnection* connection, bool last, const Answer& answer) {
    bool closed = false;
    current = &answer;
    const bool served = process_request(*connection, last, closed, [](httplib::Request& request) {
      // Answers are not compressed: its encoders' settings cost more than the bytes they spare.
      request.headers.erase("Accept-Encoding");
    });
    current = nullptr;
    return served && !closed && !last;
  }

 private:
  static thread_local const Answer* current;
};
thread_local const Protocol::Answer* Protocol::current = nullptr;

}  // namespace

struct HttpListener::Impl {
  struct Open {
    std::shared_ptr<HttpConnection> connection;
    std::string peer;
    bool serving = false;  // it has sent a head, whose answer is under way
    bool ended = false;
  };

  HttpListenerOptions options;
  Handler handler;
  std::unique_ptr<TlsContext> tls;
  ListenSockets listening;
  UniqueFd wake;
  Protocol protocol;
  std::thread acceptor;

  absl::Mutex mutex;
  bool stop ABSL_GUARDED_BY(mutex) = false;
  std::map<int64_t, Open> open ABSL_GUARDED_BY(mutex);  // by order of arrival
  std::map<int64_t, std::thread> threads ABSL_GUARDED_BY(mutex);
  std::vector<int64_t> ended ABSL_GUARDED_BY(mutex);  // threads to be joined
  HttpCounts counts ABSL_GUARDED_BY(mutex);
  int64_t next_id = 0;  // the acceptor's own

  void Run();
  void AcceptAll(int listener);
  void Take(UniqueFd fd, const sockaddr_storage& peer);
  bool MakeRoom(const std::string& peer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  void JoinEnded();
  void Serve(int64_t id, HttpConnection* connection);
  bool SetServing(int64_t id, bool serving);
};

// False: the listener stops, or the connection was closed to make room.
bool HttpListener::Impl::SetServing(int64_t id, bool serving) {
  absl::MutexLock lock(&mutex);
  open.at(id).serving = serving;
  return !stop;
}

void HttpListener::Impl::Serve(int64_t id, HttpConnection* connection) {
  bool usable = true;
  if (tls != nullptr) {
    const absl::StatusOr<std::shared_ptr<SSL_CTX>> context = tls->Get();
    usable = context.ok() && connection->StartTls(context->get());
  }
  constexpr int kMaxRequests = 1000;
  for (int i = 1; usable && connection->AwaitRequest(); ++i) {
    if (!SetServing(id, true)) break;
    connection->BeginRequest(options.max_head_bytes);
    bool close = false;
    usable = protocol.Serve(connection, i == kMaxRequests,
                            [&](const httplib::Request& request, httplib::Response* response) {
                              handler(request, connection, response, &close);
                              if (close) response->set_header("Connection", "close");
                            }) &&
             !close && SetServing(id, false);
  }
  connection->Linger(absl::Milliseconds(kLingerMs));
  absl::MutexLock lock(&mutex);
  open.at(id).connection.reset();
  open.erase(id);
  ended.push_back(id);
}

// Who waits for a request, or has not sent it yet, goes first: the oldest of the same peer where it
// has too many, else the oldest of all.
bool HttpListener::Impl::MakeRoom(const std::string& peer) {
  int num_of_peer = 0;
  for (const auto& [id, one] : open) num_of_peer += one.peer == peer ? 1 : 0;
  const bool too_many_of_peer = num_of_peer >= options.max_per_peer;
  if (!too_many_of_peer && static_cast<int>(open.size()) < options.max_connections) return true;
  for (auto& [id, one] : open) {
    if (one.serving || one.ended || (too_many_of_peer && one.peer != peer)) continue;
    one.ended = true;
    one.connection->Close();
    // Its thread ends at once; until then there is one more.
    return static_cast<int>(threads.size()) < 2 * options.max_connections;
  }
  return false;
}

void HttpListener::Impl::Take(UniqueFd fd, const sockaddr_storage& peer) {
  const std::string host = HostOf(peer);
  absl::MutexLock lock(&mutex);
  if (stop || !MakeRoom(host)) {
    ++counts.num_refused;
    return;
  }
  ++counts.num_accepted;
  const int64_t id = next_id++;
  auto connection =
      std::make_shared<HttpConnection>(std::move(fd), options.timeouts, host, PortOf(peer));
  open[id] = {connection, host};
  threads[id] = std::thread([this, id, connection]() mutable {
    HttpConnection* const raw = connection.get();
    Serve(id, raw);
    connection.reset();
  });
}

void HttpListener::Impl::AcceptAll(int listener) {
  while (true) {
    sockaddr_storage peer = {};
    socklen_t size = sizeof(peer);
    UniqueFd fd(
        accept4(listener, reinterpret_cast<sockaddr*>(&peer), &size, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (fd.get() >= 0) {
      Take(std::move(fd), peer);
      continue;
    }
    if (errno == EINTR || errno == ECONNABORTED) continue;
    // Level-triggered: polling on would spin while there are no descriptors.
    if (errno != EAGAIN && errno != EWOULDBLOCK) poll(nullptr, 0, kAcceptPauseMs);
    return;
  }
}

void HttpListener::Impl::JoinEnded() {
  std::vector<std::thread> finished;
  {
    absl::MutexLock lock(&mutex);
    for (const int64_t id : ended) {
      finished.push_back(std::move(threads.at(id)));
      threads.erase(id);
    }
    ended.clear();
  }
  for (std::thread& thread : finished) thread.join();
}

void HttpListener::Impl::Run() {
  while (true) {
    std::vector<pollfd> polled = {{wake.get(), POLLIN, 0}};
    for (const UniqueFd& fd : listening.sockets) polled.push_back({fd.get(), POLLIN, 0});
    poll(polled.data(), polled.size(), 1000);
    JoinEnded();
    if (polled[0].revents != 0) return;
    for (size_t i = 1; i < polled.size(); ++i) {
      if (polled[i].revents != 0) AcceptAll(polled[i].fd);
    }
  }
}

HttpListener::HttpListener(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<HttpListener>> HttpListener::Start(
    const HttpListenerOptions& options, Handler handler) {
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  impl->handler = std::move(handler);
  if (options.tls_files != nullptr) {
    impl->tls =
        std::make_unique<TlsContext>(options.tls_files, options.client_certificate_optional);
    UQ_RETURN_IF_ERROR(impl->tls->Get().status());
  }
  if (impl->tls != nullptr) signal(SIGPIPE, SIG_IGN);  // OpenSSL writes without MSG_NOSIGNAL
  UQ_ASSIGN_OR_RETURN(impl->listening, ListenOn(options.listen));
  impl->wake = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (impl->wake.get() < 0) return Unavailable("LISTEN_FAILED", "no file descriptor is left");
  Impl* const raw = impl.get();
  impl->acceptor = std::thread([raw] { raw->Run(); });
  return std::unique_ptr<HttpListener>(new HttpListener(std::move(impl)));
}

void HttpListener::StopAccepting() {
  {
    absl::MutexLock lock(&impl_->mutex);
    if (impl_->stop) return;
    impl_->stop = true;
    for (auto& [id, one] : impl_->open) {
      if (!one.serving) one.connection->Close();
    }
  }
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(impl_->wake.get(), &one, sizeof(one));
  impl_->acceptor.join();
  impl_->listening.sockets.clear();
}

HttpListener::~HttpListener() {
  StopAccepting();
  impl_->protocol.Stop();
  std::map<int64_t, std::thread> threads;
  {
    absl::MutexLock lock(&impl_->mutex);
    for (auto& [id, one] : impl_->open) one.connection->Close();
    threads.swap(impl_->threads);
    impl_->ended.clear();
  }
  for (auto& [id, thread] : threads) thread.join();
}

int HttpListener::port() const { return impl_->listening.port; }

HttpCounts HttpListener::counts() const {
  absl::MutexLock lock(&impl_->mutex);
  HttpCounts counts = impl_->counts;
  counts.num_open = static_cast<int64_t>(impl_->open.size());
  return counts;
}

}  // namespace uniquanf::server
