// The inputs of one layer and the next block, kept between tasks on the same device. Internal to
// worker/task. Thread safety: CachedLayer may be called from another thread (the agent's); the rest
// by the task's.
#ifndef UNIQUANF_WORKER_TASK_ACTIVATION_CACHE_H_
#define UNIQUANF_WORKER_TASK_ACTIVATION_CACHE_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "worker/backend/sequence_buffer.h"
#include "worker/task/next_block.h"
#include "worker/task/task_runner.h"

namespace uniquanf {

// Both [S, L, H] act: a layer's input in the original model, and when all earlier layers are
// quantized (empty when the job does not need it, and for layer 0, where they are equal).
struct LayerInputs {
  SequenceBuffer x_fp;
  SequenceBuffer x_q;
  // Room for another one in host memory, or empty: locking its pages takes as long as a forward
  // pass.
  SequenceBuffer spare;
  uint64_t device_bytes() const;
};

// What the next window's distillation starts from, for those sequences that it uses; on the host.
struct WindowInputs {
  std::vector<int64_t> sequences;  // which ones, by row
  SequenceBuffer x;                // inputs of the window's first layer, in the model as stored
  SequenceBuffer target;           // the original model's last hidden states
};

class ActivationCacheImpl : public ActivationCache {
 public:
  std::optional<LayerRound> CachedLayer(const std::string& plan_sha256) const override;
  void Clear() override;

  // Hands over the inputs of the layer in that round if they are here, and empties the cache either
  // way: a task is about to need the memory.
  std::optional<LayerInputs> Take(const std::string& plan_sha256, LayerRound layer);
  void Put(const std::string& plan_sha256, LayerRound layer, LayerInputs inputs);

  // The same for the window whose first layer is `layer`. Take empties all of the cache.
  std::optional<WindowInputs> TakeWindow(const std::string& plan_sha256, int layer);
  void PutWindow(const std::string& plan_sha256, int layer, WindowInputs inputs);

  // Touched by the task's thread only.
  NextBlock& next_block() { return next_block_; }

 private:
  static constexpr LayerRound kNone = {-1, -1};
  mutable absl::Mutex mutex_;
  std::string plan_sha256_ ABSL_GUARDED_BY(mutex_);
  LayerRound layer_ ABSL_GUARDED_BY(mutex_) = kNone;
  LayerInputs inputs_ ABSL_GUARDED_BY(mutex_);
  int window_ ABSL_GUARDED_BY(mutex_) = -1;  // instead of layer_
  WindowInputs window_inputs_ ABSL_GUARDED_BY(mutex_);

  NextBlock next_block_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_ACTIVATION_CACHE_H_
