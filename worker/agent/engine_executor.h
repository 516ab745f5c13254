// Runs tasks with the engine (worker/task) on one backend: translates an assignment into a call and
// its outcome into the report's message.
//
// Thread safety and errors: as TaskExecutor says. Ownership: owns the backend and the activation
// cache; borrows the clock.
#ifndef UNIQUANF_WORKER_AGENT_ENGINE_EXECUTOR_H_
#define UNIQUANF_WORKER_AGENT_ENGINE_EXECUTOR_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/base/clock.h"
#include "common/base/stop_token.h"
#include "common/object_store/object_cache.h"
#include "worker/agent/task_executor.h"
#include "worker/backend/backend.h"
#include "worker/task/task_runner.h"

namespace uniquanf {

struct EngineExecutorOptions {
  // Executors may share these; null: none.
  std::shared_ptr<ObjectCache> object_cache;  // of models and working objects in remote stores
  std::shared_ptr<StoreObserver> store_observer;
  std::optional<uint32_t> artifact_mode;  // TaskEnvironment
  std::string credentials_dir;            // DataAccess
  std::optional<SigningKey> signing_key;  // with which results are signed
};

class EngineExecutor : public TaskExecutor {
 public:
  // Activations are float32 on the CPU and bfloat16 on CUDA.
  EngineExecutor(std::unique_ptr<Backend> backend, const Clock* clock,
                 EngineExecutorOptions options);
  ~EngineExecutor() override;

  absl::StatusOr<v1::TaskOutcome> Execute(const v1::TaskAssignment& assignment,
                                          const TaskCallbacks& callbacks) override;
  std::vector<v1::CachedActivations> Cached() const override;

 private:
  // What the slot's tasks and their stores ask; outlives the executor with the stores.
  struct Running {
    absl::Mutex mutex;
    StopToken stop ABSL_GUARDED_BY(mutex);  // the running task's
  };

  void SetStop(StopToken stop);
  absl::StatusOr<v1::TaskOutcome> OpenAndDispatch(const v1::TaskAssignment& assignment,
                                                  TaskEnvironment* environment);
  absl::StatusOr<v1::TaskOutcome> Dispatch(const v1::TaskAssignment& assignment,
                                           const TaskEnvironment& environment);
  void NoteCached(const v1::TaskAssignment& assignment);

  const std::unique_ptr<Backend> backend_;
  const Clock* const clock_;
  const std::unique_ptr<ActivationCache> cache_;
  const EngineExecutorOptions options_;
  const std::shared_ptr<Running> running_ = std::make_shared<Running>();
  LayerRunner layers_;
  mutable absl::Mutex mutex_;
  // As of the last finished task: the cache itself belongs to the slot's thread.
  std::vector<v1::CachedActivations> cached_ ABSL_GUARDED_BY(mutex_);
};

// "jobs/a" of "jobs/a/tasks/b"; the whole name when it has another form.
std::string JobOfTask(absl::string_view task);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_AGENT_ENGINE_EXECUTOR_H_
