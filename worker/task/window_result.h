// What a window's task leaves behind: one content-addressed JSON object that holds the results of
// its layers, as layer tasks leave them, with the distilled shards in place of those before.
// Deterministic: no times, no hosts. Internal to worker/task.
//
// Thread safety: plain values. Errors: kInvalidArgument (INVALID_WINDOW_RESULT,
// INVALID_LAYER_RESULT).
#ifndef UNIQUANF_WORKER_TASK_WINDOW_RESULT_H_
#define UNIQUANF_WORKER_TASK_WINDOW_RESULT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/task/layer_result.h"
#include "worker/task/task_runner.h"

namespace uniquanf {

// A window may have all layers of a model.
inline constexpr uint64_t kMaxWindowResultBytes = uint64_t{1} << 30;

struct WindowResult {
  std::string plan_sha256;
  int first_layer = 0;
  std::string environment;  // Backend::description() of whoever ran it
  // Mean divergence a token over the judging sequences: before, and as stored.
  double initial_divergence = 0, final_divergence = 0;
  int64_t best_step = 0;          // 0: what was there before was kept
  std::vector<float> loss_curve;  // at most 256 means of consecutive steps
  std::vector<LayerResult> layers;

  std::string ToJson() const;
  static absl::StatusOr<WindowResult> FromJson(absl::string_view json);
};

// Whether an object is a window's result: else a layer's, where it is either.
bool IsWindowResult(absl::string_view json);

// Loads a window's result, which must be of this plan and begin with this layer.
absl::StatusOr<WindowResult> LoadWindowResult(const std::string& plan_sha256, int first_layer,
                                              const std::string& digest,
                                              const TaskEnvironment& env);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_WINDOW_RESULT_H_
