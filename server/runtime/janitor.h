// Deletes the working objects of deleted jobs. Which ones is durable (the store's garbage list, put
// there in the transaction that deleted the job), so a server that dies midway goes on after its
// restart; and only what is listed is ever deleted, so nothing of a living job or of another server
// that shares the object root can be. A worker whose lease has ended may write a last object after
// that, so a job stays on the list, and is swept again, until nothing came for a while.
//
// Removes also what killed writers left half written below the object root: multipart uploads,
// temporary files. Those of artifacts elsewhere are for the bucket's own lifecycle rule.
//
// Thread safety: thread-safe; works on its own thread. Lifetime: borrows runtime and logger; stop
// it before them.
#ifndef UNIQUANF_SERVER_RUNTIME_JANITOR_H_
#define UNIQUANF_SERVER_RUNTIME_JANITOR_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/object_store/object_store.h"
#include "server/runtime/runtime.h"

namespace uniquanf::server {

struct JanitorOptions {
  std::string object_root;  // URI
  StoreOptions store;
  absl::Duration period = absl::Seconds(5);
  // Longer than any worker goes on with a task whose lease has ended.
  absl::Duration late_write_grace = absl::Minutes(5);
  // Half-written objects of this age go, looked for this often. Infinite age: never.
  absl::Duration unfinished_write_age = absl::Hours(24);
  absl::Duration unfinished_write_period = absl::Hours(1);
  const Clock* clock = &SystemClock();
  // Told of every sweep of a job's objects: how many went, or why it has to be tried again.
  std::function<void(const std::string& uid, int64_t num_objects, const absl::Status&)> on_swept;
  // Told where half-written objects were removed, or why not.
  std::function<void(const absl::StatusOr<int>& num_removed)> on_unfinished_writes;
};

class Janitor {
 public:
  Janitor(JanitorOptions options, Runtime* runtime);
  ~Janitor();

  // Deletes everything below work/{uid}; returns the number of objects. Public for tests.
  static absl::StatusOr<int64_t> Sweep(ObjectStore* root, const std::string& uid);

 private:
  void Run();
  bool Stopping();
  void SweepGarbage();
  void SweepUnfinishedWrites();

  const JanitorOptions options_;
  Runtime* const runtime_;
  // The thread's own.
  std::shared_ptr<ObjectStore> root_;
  std::map<std::string, absl::Duration> quiet_since_;  // by uid: when the last object was deleted
  absl::Duration next_unfinished_sweep_ = -absl::InfiniteDuration();
  absl::Mutex mutex_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_RUNTIME_JANITOR_H_
