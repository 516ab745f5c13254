// A reverse proxy for HTTP/1.1 on the loopback interface that fails a part of the requests, by a
// seed: refused with 503, reset before they reach the server, done but never answered, answered
// with half a body. For object stores that have bad days.
//
// Requests pass byte for byte (signatures cover the Host header, which names this proxy).
//
// Thread safety: the public methods may be called from any thread. One thread for each connection;
// the destructor ends them.
#ifndef UNIQUANF_TESTS_SUPPORT_FAILING_HTTP_PROXY_H_
#define UNIQUANF_TESTS_SUPPORT_FAILING_HTTP_PROXY_H_

#include <atomic>
#include <cstdint>
#include <list>
#include <map>
#include <random>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace uniquanf {

class FailingHttpProxy {
 public:
  // `target`: "127.0.0.1:PORT". `failure_rate` of the requests fail, in [0, 1].
  FailingHttpProxy(const std::string& target, uint64_t seed, double failure_rate);
  ~FailingHttpProxy();
  FailingHttpProxy(const FailingHttpProxy&) = delete;
  FailingHttpProxy& operator=(const FailingHttpProxy&) = delete;

  const std::string& address() const { return address_; }
  void set_failure_rate(double rate) { failure_rate_.store(rate); }

  struct Counts {
    int requests = 0;
    int refused = 0, reset = 0, unanswered = 0, truncated = 0;  // the failed ones, by kind
    int failed() const { return refused + reset + unanswered + truncated; }
  };
  Counts counts() const;
  // How often the server answered a PUT whose path ends so with success, relayed or not.
  int NumPuts(const std::string& path_end) const;
  // How often such a PUT reached the server whole, and the server went away without an answer: it
  // may have done it or not.
  int NumUnknownPuts(const std::string& path_end) const;
  // Bytes of bodies with which the server answered GETs of paths that hold `part` (up to the '?').
  uint64_t BytesRead(const std::string& part) const;

 private:
  enum class Fault { kNone, kRefuse, kReset, kUnanswered, kTruncate };
  struct Connection {
    int client = -1;
    std::thread thread;
    std::atomic<bool> done{false};
  };

  void Run();
  void Serve(Connection* connection);
  int CountOf(const std::map<std::string, int>& counts, const std::string& path_end) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  Fault Draw();

  const std::string target_;
  std::string address_;
  int listener_ = -1;
  std::atomic<double> failure_rate_;
  std::atomic<bool> stop_{false};
  mutable absl::Mutex mutex_;
  std::mt19937_64 random_ ABSL_GUARDED_BY(mutex_);
  Counts counts_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, int> puts_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, int> unknown_puts_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, uint64_t> bytes_read_ ABSL_GUARDED_BY(mutex_);
  std::list<Connection> connections_;  // the accepting thread's
  std::thread thread_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_SUPPORT_FAILING_HTTP_PROXY_H_
