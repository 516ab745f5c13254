// A layer task in two parts: what needs the device, and what is left when the device is free again.
// Internal to worker/task.
#ifndef UNIQUANF_WORKER_TASK_LAYER_TASK_H_
#define UNIQUANF_WORKER_TASK_LAYER_TASK_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/task/task_runner.h"

namespace uniquanf {

// A layer whose shard is being packed and written in other threads; holds no device memory. The
// destructor waits for those threads. Thread safety: none.
class UnstoredLayer {
 public:
  virtual ~UnstoredLayer() = default;
  // Waits for the shard, then stores the layer's result. Call once.
  virtual absl::StatusOr<LayerOutcome> Store() = 0;
  // The layer that can run now without this one's result: its inputs went to the cache.
  virtual std::optional<LayerRound> NextAtHand() const = 0;
};

// Why OptimizeLayer without earlier results failed when it would have needed them.
inline constexpr absl::string_view kInputsNotAtHand = "INPUTS_NOT_AT_HAND";

// Everything of RunLayer that needs the backend and its cache. `earlier` null: only when the cache
// has the layer's inputs, and only in round 0. When it is cancelled before the inputs were used up
// they go back to the cache.
absl::StatusOr<std::unique_ptr<UnstoredLayer>> OptimizeLayer(
    const QuantizationSpec& spec, const std::string& plan_sha256, LayerRound layer,
    const std::vector<std::string>* earlier, const TaskEnvironment& env);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_LAYER_TASK_H_
