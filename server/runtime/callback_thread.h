// Runs callbacks one after another on a thread of its own, in the order in which they came.
//
// Thread safety: thread-safe.
#ifndef UNIQUANF_SERVER_RUNTIME_CALLBACK_THREAD_H_
#define UNIQUANF_SERVER_RUNTIME_CALLBACK_THREAD_H_

#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace uniquanf::server {

class CallbackThread {
 public:
  CallbackThread() : thread_([this] { Run(); }) {}
  ~CallbackThread() { Stop(); }

  // REQUIRES: Stop has not been called.
  void Add(std::function<void()> callback);
  // Returns when all have run. Idempotent; not from a callback.
  void Stop();

 private:
  void Run();

  absl::Mutex mutex_;
  std::vector<std::function<void()>> queue_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_RUNTIME_CALLBACK_THREAD_H_
