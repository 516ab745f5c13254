// The inputs of one layer, kept between tasks on the same device. Internal to worker/task.
// Thread safety: CachedLayer may be called from another thread (the agent's); the rest by the
// task's.
#ifndef UNIQUANF_WORKER_TASK_ACTIVATION_CACHE_H_
#define UNIQUANF_WORKER_TASK_ACTIVATION_CACHE_H_

#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "worker/backend/sequence_buffer.h"
#include "worker/model/checkpoint.h"
#include "worker/task/task_runner.h"

namespace uniquanf {

// Both [S, L, H] act: a layer's input in the original model, and when all earlier layers are
// quantized (empty when the job does not need it; for layer 0 they are equal and x_q is a copy).
struct LayerInputs {
  SequenceBuffer x_fp;
  SequenceBuffer x_q;
  uint64_t device_bytes() const;
};

class ActivationCacheImpl : public ActivationCache {
 public:
  std::optional<LayerRound> CachedLayer(const std::string& plan_sha256) const override;
  void Clear() override;

  // Hands over the inputs of the layer in that round if they are here, and empties the cache either
  // way: a task is about to need the memory.
  std::optional<LayerInputs> Take(const std::string& plan_sha256, LayerRound layer);
  void Put(const std::string& plan_sha256, LayerRound layer, LayerInputs inputs);

  // Starts reading a layer's weights in a thread of its own, for the task that likely comes next.
  void Prefetch(const std::string& plan_sha256, int layer,
                std::function<absl::StatusOr<HostBlock>()> load);
  bool IsPrefetched(const std::string& plan_sha256, int layer) const {
    return prefetched_.valid() && prefetched_plan_ == plan_sha256 && prefetched_layer_ == layer;
  }
  // The prefetched weights, waited for, if they are these; what else was prefetched is dropped.
  std::optional<absl::StatusOr<HostBlock>> TakePrefetched(const std::string& plan_sha256,
                                                          int layer);

 private:
  static constexpr LayerRound kNone = {-1, -1};
  mutable std::mutex mutex_;
  std::string plan_sha256_;  // guarded by mutex_, as are the next two
  LayerRound layer_ = kNone;
  LayerInputs inputs_;

  // Touched by the task's thread only.
  std::string prefetched_plan_;
  int prefetched_layer_ = -1;
  std::future<absl::StatusOr<HostBlock>> prefetched_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_ACTIVATION_CACHE_H_
