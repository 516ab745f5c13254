// The batch program's working store: a job's content-addressed objects and a journal of finished
// layers, so that a run that was killed continues where it was. Lies beside the output
// ("OUTPUT.partial") unless
// --work names another place; removed when the artifact is published.
//
// Thread safety: none. Errors: kFailedPrecondition (WORK_IN_USE) when another process holds it;
// store errors pass through.
#ifndef UNIQUANF_WORKER_BATCH_WORK_AREA_H_
#define UNIQUANF_WORKER_BATCH_WORK_AREA_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/job/task_graph.h"
#include "common/object_store/object_cache.h"
#include "common/object_store/object_store.h"
#include "worker/task/task_runner.h"

namespace uniquanf::batch {

class WorkArea {
 public:
  // `work_uri` empty: beside `output_uri`, which must then be a local path. `cache` may be null.
  static absl::StatusOr<std::unique_ptr<WorkArea>> Open(const std::string& work_uri,
                                                        const std::string& output_uri,
                                                        std::shared_ptr<ObjectCache> cache);
  ~WorkArea();

  const std::shared_ptr<ObjectStore>& store() const { return store_; }
  const std::string& uri() const { return uri_; }

  // The digest of the finished task's result (a layer's or a window's), or "" when it has to be
  // run.
  std::string Finished(const std::string& plan_sha256, const TaskKey& task) const;
  absl::Status RecordFinished(const std::string& plan_sha256, const TaskKey& task,
                              const std::string& result_sha256);
  // Any task of any plan is finished: worth keeping.
  bool HasProgress() const;
  // Removes everything that lies in it.
  absl::Status Remove();

 private:
  WorkArea() = default;
  std::string uri_;
  std::string local_path_;  // empty when not local
  std::shared_ptr<ObjectStore> store_;
  int lock_fd_ = -1;
  bool created_ = false;
};

}  // namespace uniquanf::batch

#endif  // UNIQUANF_WORKER_BATCH_WORK_AREA_H_
