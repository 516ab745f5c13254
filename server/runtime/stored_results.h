// Which results of finished tasks the object store still holds: asked before a job is continued
// from them, on a thread of its own, since an object store takes its time.
//
// Thread safety: thread-safe. Lifetime: the destructor runs what was asked before.
#ifndef UNIQUANF_SERVER_RUNTIME_STORED_RESULTS_H_
#define UNIQUANF_SERVER_RUNTIME_STORED_RESULTS_H_

#include <functional>
#include <memory>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "common/object_store/object_store.h"
#include "server/runtime/callback_thread.h"
#include "server/runtime/published_state.h"

namespace uniquanf::server {

class StoredResults {
 public:
  explicit StoredResults(std::string object_root, StoreOptions store = {})
      : object_root_(std::move(object_root)), store_options_(std::move(store)) {}
  ~StoredResults() { thread_.Stop(); }

  // Digests of results of the job's finished tasks that are not there. Errors: the store's.
  using Callback = std::function<void(absl::StatusOr<std::set<std::string>>)>;
  void FindMissing(JobView job, Callback done) const;

 private:
  absl::StatusOr<std::set<std::string>> Look(const JobView& job) const;

  const std::string object_root_;
  const StoreOptions store_options_;
  mutable std::shared_ptr<ObjectStore> root_;  // the thread's own
  mutable CallbackThread thread_;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_RUNTIME_STORED_RESULTS_H_
