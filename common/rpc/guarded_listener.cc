#include "common/rpc/guarded_listener.h"

#include <grpcpp/create_channel_posix.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

// Beyond this a connection's buffers cost more memory than descriptors are worth.
constexpr int64_t kMostConnections = 8192;
// For state, objects, metrics, gRPC itself and connections that are still being closed.
constexpr int64_t kReservedFiles = 96;
constexpr int kAcceptPauseMs = 100;
constexpr absl::Duration kSweepPeriod = absl::Seconds(1);
constexpr absl::Duration kMinSweepGap = absl::Milliseconds(20);
constexpr int kConnectTimeoutMs = 2000;

// A peer whose machine is gone would keep its descriptor for hours.
void SetSocketOptions(int fd) {
  const int on = 1, idle_s = 60, interval_s = 15, probes = 4;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

// Resets it: a refused connection must not linger, nor the peer take it for an accepted one.
void Refuse(UniqueFd fd) {
  const linger now = {1, 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

std::string AddressOf(const sockaddr_storage& address) {
  return absl::StrCat(HostOf(address), " ", PortOf(address));
}

absl::Status Dead(absl::string_view step, int error) {
  return Unavailable("LISTENER_DEAD",
                     absl::StrCat("the gRPC port cannot be reached from this process itself: ",
                                  step, ": ", std::strerror(error)));
}

absl::Duration Now() { return SystemClock().Monotonic(); }

}  // namespace

ConnectionLimits ResolveConnectionLimits(int max_connections, int max_per_peer, int64_t max_files) {
  const int64_t bearable =
      std::clamp<int64_t>(max_files - kReservedFiles, max_files / 4, kMostConnections);
  ConnectionLimits limits;
  limits.max_connections = static_cast<int>(std::max<int64_t>(
      1, max_connections == 0 ? bearable : std::min<int64_t>(max_connections, bearable)));
  limits.max_per_peer = max_per_peer == 0 ? std::max(1, limits.max_connections / 2) : max_per_peer;
  return limits;
}

absl::StatusOr<std::unique_ptr<GuardedListener>> GuardedListener::Bind(
    const std::string& listen, const ConnectionLimits& limits) {
  UQ_ASSIGN_OR_RETURN(ListenSockets listening, ListenOn(listen));
  std::unique_ptr<GuardedListener> listener(new GuardedListener(std::move(listening), limits));
  if (listener->wake_.get() < 0) {
    return Unavailable("LISTEN_FAILED", "no file descriptor is left for the gRPC port");
  }
  return listener;
}

GuardedListener::GuardedListener(ListenSockets listening, const ConnectionLimits& limits)
    : listening_(std::move(listening)),
      limits_(limits),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      swept_at_(Now()) {}

GuardedListener::~GuardedListener() { Stop(); }

void GuardedListener::AddTo(grpc::ServerBuilder* builder,
                            std::shared_ptr<grpc::ServerCredentials> credentials) {
  using Type = grpc::ServerBuilder::experimental_type::ExternalConnectionType;
  acceptor_ =
      builder->experimental().AddExternalConnectionAcceptor(Type::FROM_FD, std::move(credentials));
  self_acceptor_ = builder->experimental().AddExternalConnectionAcceptor(
      Type::FROM_FD, grpc::InsecureServerCredentials());
}

void GuardedListener::Start() {
  thread_ = std::thread([this] { Run(); });
}

void GuardedListener::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_.get(), &one, sizeof(one));
  if (thread_.joinable()) thread_.join();
  listening_.sockets.clear();
}

void GuardedListener::Run() {
  while (true) {
    std::vector<pollfd> polled = {{wake_.get(), POLLIN, 0}};
    if (!out_of_files_) {
      for (const UniqueFd& fd : listening_.sockets) polled.push_back({fd.get(), POLLIN, 0});
    }
    poll(
        polled.data(), polled.size(),
        out_of_files_ ? kAcceptPauseMs : static_cast<int>(absl::ToInt64Milliseconds(kSweepPeriod)));
    out_of_files_ = false;
    {
      absl::MutexLock lock(&mutex_);
      if (stop_) return;
      if (Now() - swept_at_ >= kSweepPeriod) ForgetClosed();
    }
    for (const UniqueFd& fd : listening_.sockets) AcceptAll(fd.get());
  }
}

void GuardedListener::AcceptAll(int listener) {
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
    if (errno == EAGAIN || errno == EWOULDBLOCK) return;
    // Out of descriptors or memory: others will close some.
    out_of_files_ = true;
    absl::MutexLock lock(&mutex_);
    ++counts_.num_failed_accepts;
    return;
  }
}

void GuardedListener::Take(UniqueFd fd, const sockaddr_storage& peer) {
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) return;
  SetSocketOptions(fd.get());
  Acceptor* acceptor = acceptor_.get();
  {
    absl::MutexLock lock(&mutex_);
    if (self_addresses_.erase(AddressOf(peer)) > 0) {
      acceptor = self_acceptor_.get();
    } else if (!Admit(fd.get(), info.st_ino, HostOf(peer))) {
      return Refuse(std::move(fd));
    }
  }
  Acceptor::NewConnectionParameters parameters;
  parameters.listener_fd = listening_.sockets[0].get();
  parameters.fd = fd.Release();
  acceptor->HandleNewConnection(&parameters);
}

bool GuardedListener::Admit(int fd, ino_t inode, const std::string& peer) {
  const auto num_of_peer = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto it = open_of_peer_.find(peer);
    return it == open_of_peer_.end() ? 0 : it->second;
  };
  const auto full = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return open_.size() >= static_cast<size_t>(limits_.max_connections) ||
           num_of_peer() >= limits_.max_per_peer;
  };
  if (full() && Now() - swept_at_ >= kMinSweepGap) ForgetClosed();
  if (full()) {
    ++(num_of_peer() >= limits_.max_per_peer ? counts_.num_refused_peer
                                             : counts_.num_refused_total);
    return false;
  }
  Forget(open_.find(fd));  // gRPC has closed what this number stood for
  open_[fd] = {inode, peer};
  ++open_of_peer_[peer];
  ++counts_.num_accepted;
  counts_.num_open = static_cast<int64_t>(open_.size());
  return true;
}

std::map<int, GuardedListener::Connection>::iterator GuardedListener::Forget(
    std::map<int, Connection>::iterator it) {
  if (it == open_.end()) return it;
  const auto peer = open_of_peer_.find(it->second.peer);
  if (--peer->second == 0) open_of_peer_.erase(peer);
  return open_.erase(it);
}

// gRPC does not say when it closes a connection; the file's number then is free, or another file's.
void GuardedListener::ForgetClosed() {
  swept_at_ = Now();
  for (auto it = open_.begin(); it != open_.end();) {
    struct stat info {};
    const bool alive = fstat(it->first, &info) == 0 && info.st_ino == it->second.inode;
    it = alive ? std::next(it) : Forget(it);
  }
  counts_.num_open = static_cast<int64_t>(open_.size());
}

ConnectionCounts GuardedListener::counts() const {
  absl::MutexLock lock(&mutex_);
  return counts_;
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> GuardedListener::ConnectToSelf() {
  sockaddr_storage target = {};
  socklen_t size = sizeof(target);
  if (getsockname(listening_.sockets[0].get(), reinterpret_cast<sockaddr*>(&target), &size) != 0) {
    return Dead("getsockname", errno);
  }
  const std::string host = HostOf(target);
  if (host == "::" || host == "0.0.0.0") {
    sockaddr_in loopback = {};
    loopback.sin_family = AF_INET;
    loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    loopback.sin_port = htons(static_cast<uint16_t>(port()));
    target = {};
    std::memcpy(&target, &loopback, sizeof(loopback));
    size = sizeof(loopback);
  }
  UniqueFd fd(socket(target.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.get() < 0) return Dead("socket", errno);
  // Bound to a port of its own first, so that the accepting thread knows it when it comes.
  sockaddr_storage own = target;
  reinterpret_cast<sockaddr_in*>(&own)->sin_port = 0;
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&own), size) != 0 ||
      getsockname(fd.get(), reinterpret_cast<sockaddr*>(&own), &size) != 0) {
    return Dead("bind", errno);
  }
  const std::string address = AddressOf(own);
  {
    absl::MutexLock lock(&mutex_);
    self_addresses_.insert(address);
  }
  const auto fail = [&](absl::string_view step, int error) {
    absl::MutexLock lock(&mutex_);
    self_addresses_.erase(address);
    return Dead(step, error);
  };
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&target), size) != 0) {
    if (errno != EINPROGRESS) return fail("connect", errno);
    pollfd polled = {fd.get(), POLLOUT, 0};
    if (poll(&polled, 1, kConnectTimeoutMs) != 1) return fail("connect", ETIMEDOUT);
    int error = 0;
    socklen_t error_size = sizeof(error);
    getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &error_size);
    if (error != 0) return fail("connect", error);
  }
  return grpc::CreateCustomInsecureChannelFromFd("self", fd.Release(), grpc::ChannelArguments());
}

}  // namespace uniquanf
