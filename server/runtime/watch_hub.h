// Tells watchers that a job has changed. The writer only drops job numbers here; a thread of the
// hub calls the watchers, so that neither many nor slow watchers hold it up. Changes of one job
// between two rounds are told once: watchers read the published state, whose last version they so
// never miss.
//
// Thread safety: thread-safe. Lifetime: a watcher may be called once more while it is being
// removed; it is held by shared_ptr for that.
#ifndef UNIQUANF_SERVER_RUNTIME_WATCH_HUB_H_
#define UNIQUANF_SERVER_RUNTIME_WATCH_HUB_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace uniquanf::server {

class JobWatcher {
 public:
  virtual ~JobWatcher() = default;
  // The job may have changed. Must not block.
  virtual void OnJobChanged() = 0;
  // About once a second. Must not block.
  virtual void OnTick() {}
  // The server shuts down: end the stream.
  virtual void OnShutdown() = 0;
};

class WatchHub {
 public:
  WatchHub();
  ~WatchHub();

  // In place of a job's number: whoever watches all of them.
  static constexpr uint64_t kAllJobs = 0;
  void Add(uint64_t job, std::shared_ptr<JobWatcher> watcher);
  void Remove(uint64_t job, JobWatcher* watcher);
  void JobsChanged(const std::set<uint64_t>& jobs);
  // Every watched job may have changed, or who may watch it.
  void AllChanged();
  // Ends all present streams.
  void EndStreams();
  // Ends all streams, present and future.
  void Shutdown();
  int64_t num_watchers() const;

 private:
  void Run();

  mutable absl::Mutex mutex_;
  std::map<uint64_t, std::map<JobWatcher*, std::shared_ptr<JobWatcher>>> watchers_
      ABSL_GUARDED_BY(mutex_);
  std::set<uint64_t> changed_ ABSL_GUARDED_BY(mutex_);
  int64_t num_watchers_ ABSL_GUARDED_BY(mutex_) = 0;
  bool shutdown_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_RUNTIME_WATCH_HUB_H_
