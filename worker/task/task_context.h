// What layer and finalize tasks have in common: the plan, the opened checkpoint and the checks
// between them. Internal to worker/task.
#ifndef UNIQUANF_WORKER_TASK_TASK_CONTEXT_H_
#define UNIQUANF_WORKER_TASK_TASK_CONTEXT_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/object_store/open_data.h"
#include "worker/model/checkpoint.h"
#include "worker/task/layer_result.h"
#include "worker/task/plan.h"
#include "worker/task/task_runner.h"

namespace uniquanf {

inline constexpr uint64_t kMaxPlanBytes = 16 << 20;
inline constexpr uint64_t kMaxLayerResultBytes = 16 << 20;

struct TaskContext {
  Plan plan;
  std::shared_ptr<Checkpoint> checkpoint;
};

// Loads and checks both. Errors: FAILED_PRECONDITION with reason MODEL_CHANGED (the model differs
// from the one that was prepared) or DEVICE_MISMATCH.
absl::StatusOr<TaskContext> OpenTaskContext(const QuantizationSpec& spec,
                                            const std::string& plan_sha256,
                                            const TaskEnvironment& env);

// Loads a layer's result, which must be of this plan, layer and round.
absl::StatusOr<LayerResult> LoadLayerResult(const std::string& plan_sha256, LayerRound layer,
                                            const std::string& digest, const TaskEnvironment& env);
// Those of layers 0..n−1 in one round.
absl::StatusOr<std::vector<LayerResult>> LoadLayerResults(const std::string& plan_sha256, int round,
                                                          const std::vector<std::string>& digests,
                                                          const TaskEnvironment& env);

// How tasks open what the job names.
DataOptions DataOptionsOf(const TaskEnvironment& env, DataPurpose purpose);
const char* DeviceName(DeviceKind kind);  // "cpu", "cuda"
const char* ArithmeticName(DType act);    // "f32", "bf16"
absl::Status CancelledError();            // kCancelled (TASK_CANCELLED)
bool IsCancelled(const TaskEnvironment& env);
// A curve of means of consecutive steps, of `num_steps` in all, as points at their ends.
LossHistory HistoryOf(const std::vector<float>& curve, int64_t num_steps);
void ReportProgress(const TaskEnvironment& env, const char* phase, int64_t step, int64_t num_steps,
                    double loss = 0);

// "runs/layer-0003.json": facts of a run (times), overwritten by every run, never digested.
std::string RunFactsKey(const std::string& task);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_TASK_CONTEXT_H_
