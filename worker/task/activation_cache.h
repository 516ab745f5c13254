// The inputs of one layer, kept between tasks on the same device. Internal to worker/task.
// Thread safety: CachedLayer may be called from another thread (the agent's); the rest by the
// task's.
#ifndef UNIQUANF_WORKER_TASK_ACTIVATION_CACHE_H_
#define UNIQUANF_WORKER_TASK_ACTIVATION_CACHE_H_

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "worker/backend/tensor.h"
#include "worker/task/task_runner.h"

namespace uniquanf {

// Both [S, L, H] act: a layer's input in the original model, and when all earlier layers are
// quantized (empty when the job does not need it; for layer 0 they are equal and x_q is a copy).
struct LayerInputs {
  Tensor x_fp;
  Tensor x_q;
};

class ActivationCacheImpl : public ActivationCache {
 public:
  int CachedLayer(const std::string& plan_sha256) const override;
  void Clear() override;

  // Hands over the inputs of `layer` if they are here, and empties the cache either way: a task is
  // about to need the memory.
  std::optional<LayerInputs> Take(const std::string& plan_sha256, int layer);
  void Put(const std::string& plan_sha256, int layer, LayerInputs inputs);

 private:
  mutable std::mutex mutex_;
  std::string plan_sha256_;  // guarded by mutex_, as are the next two
  int layer_ = -1;
  LayerInputs inputs_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_ACTIVATION_CACHE_H_
