#include "tests/support/tcp_proxy.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "absl/time/clock.h"
#include "tests/support/socket_util.h"

namespace uniquanf {
namespace {

constexpr size_t kChunkBytes = 64 << 10;
constexpr size_t kMaxPendingBytes = 1 << 20;
// Faults that no event announces (CutAll, the destructor) are noticed after this.
constexpr int kMaxPollMs = 50;

}  // namespace

TcpProxy::TcpProxy(const std::string& target, uint64_t seed, const TcpFaults& faults)
    : target_(target), faults_(faults), random_(seed) {
  listener_ = ListenOnLoopback(&address_);
  thread_ = std::thread([this] { Run(); });
}

TcpProxy::~TcpProxy() {
  stop_.store(true);
  thread_.join();
  for (Connection& connection : connections_) Close(&connection, /*reset=*/true);
  close(listener_);
}

void TcpProxy::SetFaults(const TcpFaults& faults) {
  absl::MutexLock lock(&mutex_);
  faults_ = faults;
}

absl::Duration TcpProxy::Draw(absl::Duration max) {
  return max * std::uniform_real_distribution<double>(0, 1)(random_);
}

void TcpProxy::Run() {
  while (!stop_.load()) {
    std::vector<pollfd> polls = {{listener_, POLLIN, 0}};
    absl::Time next = absl::Now() + absl::Milliseconds(kMaxPollMs);
    for (Connection& connection : connections_) {
      next = std::min(next, connection.fate_at);
      for (int side = 0; side < 2; ++side) {
        const Pipe& in = connection.pipes[side];
        const Pipe& out = connection.pipes[1 - side];
        short events = 0;
        if (!in.read_ended && in.pending_bytes < kMaxPendingBytes) events |= POLLIN;
        if (!connection.silent && !out.chunks.empty()) {
          if (out.chunks.front().due <= absl::Now()) {
            events |= POLLOUT;
          } else {
            next = std::min(next, out.chunks.front().due);
          }
        }
        // A negative descriptor is passed over: an end that was read would announce itself forever.
        polls.push_back({events != 0 ? connection.fds[side] : -1, events, 0});
      }
    }
    const int64_t wait_ms = absl::ToInt64Milliseconds(next - absl::Now()) + 1;
    poll(polls.data(), polls.size(), static_cast<int>(std::clamp<int64_t>(wait_ms, 0, kMaxPollMs)));
    const absl::Time now = absl::Now();
    const bool cut = cut_all_.exchange(false);
    size_t i = 1;
    for (auto it = connections_.begin(); it != connections_.end(); i += 2) {
      if (cut) it->fate = Fate::kCut, it->fate_at = now;
      for (int side = 0; side < 2; ++side) {
        if ((polls[i + side].revents & (POLLIN | POLLHUP | POLLERR)) != 0) Read(&*it, side, now);
      }
      it = Serve(&*it, now) ? std::next(it) : connections_.erase(it);
    }
    if ((polls[0].revents & POLLIN) != 0) Accept();
  }
}

void TcpProxy::Accept() {
  Connection connection;
  connection.fds[0] = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
  if (connection.fds[0] < 0) return;
  connection.fds[1] = ConnectTo(target_);
  if (connection.fds[1] < 0) {
    CloseWithReset(connection.fds[0]);
    return;
  }
  ++num_connections_;
  absl::MutexLock lock(&mutex_);
  const double draw = std::uniform_real_distribution<double>(0, 1)(random_);
  if (draw < faults_.cut) {
    connection.fate = Fate::kCut;
  } else if (draw < faults_.cut + faults_.truncate) {
    connection.fate = Fate::kTruncate;
  } else if (draw < faults_.cut + faults_.truncate + faults_.silence) {
    connection.fate = Fate::kSilence;
  }
  const absl::Duration life = Draw(faults_.max_life);
  connection.silence = Draw(faults_.max_silence);
  if (connection.fate != Fate::kNone) connection.fate_at = absl::Now() + life;
  connection.max_delay = faults_.max_delay;
  connections_.push_back(std::move(connection));
}

void TcpProxy::Read(Connection* connection, int side, absl::Time now) {
  Pipe& pipe = connection->pipes[side];
  if (pipe.read_ended) return;
  char buffer[kChunkBytes];
  const ssize_t count = recv(connection->fds[side], buffer, sizeof(buffer), MSG_DONTWAIT);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count < 0) {
    connection->broken = true;
    return;
  }
  if (count == 0) {
    pipe.read_ended = true;
    return;
  }
  absl::Time due = now + Draw(connection->max_delay);
  if (!pipe.chunks.empty()) due = std::max(due, pipe.chunks.back().due);
  pipe.chunks.push_back({due, std::string(buffer, static_cast<size_t>(count))});
  pipe.pending_bytes += static_cast<size_t>(count);
}

bool TcpProxy::Serve(Connection* connection, absl::Time now) {
  if (connection->fate_at <= now) {
    switch (connection->fate) {
      case Fate::kNone:
        break;
      case Fate::kSilence:
        connection->silent = true;
        connection->fate = Fate::kCut;
        connection->fate_at = now + connection->silence;
        return true;
      case Fate::kTruncate: {
        // Waits for something to truncate.
        for (int side = 0; side < 2; ++side) {
          Pipe& pipe = connection->pipes[side];
          if (pipe.chunks.empty()) continue;
          const std::string& bytes = pipe.chunks.front().bytes;
          send(connection->fds[1 - side], bytes.data(), bytes.size() / 2,
               MSG_DONTWAIT | MSG_NOSIGNAL);
          ++num_broken_;
          Close(connection, /*reset=*/false);
          return false;
        }
        connection->fate_at = now + absl::Milliseconds(kMaxPollMs);
        break;
      }
      case Fate::kCut:
        ++num_broken_;
        Close(connection, /*reset=*/true);
        return false;
    }
  }
  if (connection->broken) {
    Close(connection, /*reset=*/true);
    return false;
  }
  if (connection->silent) return true;
  for (int side = 0; side < 2; ++side) {
    if (!Flush(connection, side, now)) {
      Close(connection, /*reset=*/true);
      return false;
    }
  }
  if (connection->pipes[0].write_ended && connection->pipes[1].write_ended) {
    Close(connection, /*reset=*/false);
    return false;
  }
  return true;
}

bool TcpProxy::Flush(Connection* connection, int side, absl::Time now) {
  Pipe& pipe = connection->pipes[side];
  const int out = connection->fds[1 - side];
  while (!pipe.chunks.empty() && pipe.chunks.front().due <= now) {
    std::string& bytes = pipe.chunks.front().bytes;
    const ssize_t count = send(out, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0) return errno == EAGAIN || errno == EINTR;
    pipe.pending_bytes -= static_cast<size_t>(count);
    if (static_cast<size_t>(count) < bytes.size()) {
      bytes.erase(0, static_cast<size_t>(count));
      return true;
    }
    pipe.chunks.pop_front();
  }
  if (pipe.chunks.empty() && pipe.read_ended && !pipe.write_ended) {
    pipe.write_ended = true;
    shutdown(out, SHUT_WR);
  }
  return true;
}

void TcpProxy::Close(Connection* connection, bool reset) {
  for (int& fd : connection->fds) {
    if (fd < 0) continue;
    if (reset) {
      CloseWithReset(fd);
    } else {
      close(fd);
    }
    fd = -1;
  }
}

}  // namespace uniquanf
