// Deletes the working objects of deleted jobs. Which ones is durable (the store's garbage list, put
// there in the transaction that deleted the job), so a server that dies midway goes on after its
// restart; and only what is listed is ever deleted, so nothing of a living job or of another server
// that shares the object root can be.
//
// Thread safety: thread-safe; works on its own thread. Lifetime: borrows runtime and logger; stop
// it before them.
#ifndef UNIQUANF_SERVER_RUNTIME_JANITOR_H_
#define UNIQUANF_SERVER_RUNTIME_JANITOR_H_

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/object_store/object_store.h"
#include "server/runtime/runtime.h"

namespace uniquanf::server {

struct JanitorOptions {
  std::string object_root;  // URI
  absl::Duration period = absl::Seconds(5);
  // Told of every job whose objects are gone (OK), or that has to be tried again.
  std::function<void(const std::string& uid, int64_t num_objects, const absl::Status&)> on_swept;
};

class Janitor {
 public:
  Janitor(JanitorOptions options, Runtime* runtime);
  ~Janitor();

  // Deletes everything below work/{uid}; returns the number of objects. Public for tests.
  static absl::StatusOr<int64_t> Sweep(ObjectStore* root, const std::string& uid);

 private:
  void Run();

  const JanitorOptions options_;
  Runtime* const runtime_;
  absl::Mutex mutex_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_RUNTIME_JANITOR_H_
