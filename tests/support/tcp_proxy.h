// A TCP proxy on the loopback interface that cuts, truncates, silences and delays connections, by a
// seed: the same seed draws the same fates for the same order of connections.
//
// Thread safety: the public methods may be called from any thread. One thread of its own does the
// work and ends with the object.
#ifndef UNIQUANF_TESTS_SUPPORT_TCP_PROXY_H_
#define UNIQUANF_TESTS_SUPPORT_TCP_PROXY_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <list>
#include <random>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace uniquanf {

struct TcpFaults {
  // What becomes of a connection, drawn when it is made; the rest of the probability: nothing bad.
  double cut = 0;       // reset, in flight bytes lost
  double truncate = 0;  // half of a chunk is passed on, then an orderly end
  double silence = 0;   // nothing is passed on any more for max_silence, then reset
  // When: uniform in [0, max_life] after the connection was made.
  absl::Duration max_life = absl::Seconds(1);
  absl::Duration max_silence = absl::Milliseconds(1500);
  // Every chunk waits this long, uniform in [0, max_delay]; the order is kept.
  absl::Duration max_delay = absl::ZeroDuration();
};

class TcpProxy {
 public:
  // `target`: "127.0.0.1:PORT"; need not be there yet.
  TcpProxy(const std::string& target, uint64_t seed, const TcpFaults& faults);
  ~TcpProxy();
  TcpProxy(const TcpProxy&) = delete;
  TcpProxy& operator=(const TcpProxy&) = delete;

  const std::string& address() const { return address_; }
  // For connections made from now on.
  void SetFaults(const TcpFaults& faults);
  // Resets every connection there is.
  void CutAll() { cut_all_.store(true); }
  int num_connections() const { return num_connections_.load(); }
  int num_broken() const { return num_broken_.load(); }  // by a fault

 private:
  enum class Fate { kNone, kCut, kTruncate, kSilence };
  struct Chunk {
    absl::Time due;
    std::string bytes;
  };
  struct Pipe {
    std::deque<Chunk> chunks;
    size_t pending_bytes = 0;
    bool read_ended = false, write_ended = false;
  };
  struct Connection {
    int fds[2] = {-1, -1};  // client, target
    Pipe pipes[2];          // pipes[i]: what was read from fds[i], for fds[1 - i]
    Fate fate = Fate::kNone;
    absl::Time fate_at = absl::InfiniteFuture();
    absl::Duration max_delay, silence;
    bool silent = false, broken = false;
  };

  void Run();
  void Accept();
  void Read(Connection* connection, int side, absl::Time now);
  // Passes on what is due; false when the connection has ended.
  bool Serve(Connection* connection, absl::Time now);
  bool Flush(Connection* connection, int side, absl::Time now);
  void Close(Connection* connection, bool reset);
  absl::Duration Draw(absl::Duration max);

  const std::string target_;
  std::string address_;
  int listener_ = -1;
  absl::Mutex mutex_;
  TcpFaults faults_ ABSL_GUARDED_BY(mutex_);
  std::mt19937_64 random_;  // the thread's
  std::list<Connection> connections_;
  std::atomic<bool> stop_{false}, cut_all_{false};
  std::atomic<int> num_connections_{0}, num_broken_{0};
  std::thread thread_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_SUPPORT_TCP_PROXY_H_
