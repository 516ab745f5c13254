#include "worker/task/task_context.h"

#include <utility>

#include "common/base/digest.h"
#include "common/base/status.h"
#include "worker/task/content_store.h"

namespace uniquanf {

absl::StatusOr<TaskContext> OpenTaskContext(const QuantizationSpec& spec,
                                            const std::string& plan_sha256,
                                            const TaskEnvironment& env) {
  TaskContext context;
  UQ_ASSIGN_OR_RETURN(const std::string plan_json,
                      GetContent(env.work.get(), plan_sha256, kMaxPlanBytes));
  UQ_ASSIGN_OR_RETURN(context.plan, Plan::FromJson(plan_json));
  const Plan& plan = context.plan;
  if (plan.device != DeviceName(env.backend->kind()) ||
      plan.arithmetic != ArithmeticName(env.act)) {
    return FailedPrecondition(
        "DEVICE_MISMATCH",
        absl::StrCat("the job was prepared for ", plan.device, " in ", plan.arithmetic,
                     ", but this worker computes on ", DeviceName(env.backend->kind()), " in ",
                     ArithmeticName(env.act), "; all tasks of a job run on one kind of device"));
  }
  UQ_ASSIGN_OR_RETURN(
      const std::shared_ptr<ObjectStore> store,
      OpenDataThrough(spec.model_uri, env.model_cache, DataOptionsOf(env, DataPurpose::kModel)));
  UQ_ASSIGN_OR_RETURN(context.checkpoint, Checkpoint::Open(store, /*allow_quantized=*/false));
  uint64_t size_bytes = 0;
  if (Sha256Hex(context.checkpoint->config_json()) != plan.config_sha256 ||
      TensorsDigest(*context.checkpoint, &size_bytes) != plan.tensors_sha256) {
    return FailedPrecondition("MODEL_CHANGED",
                              absl::StrCat("the model at ", spec.model_uri,
                                           " is no longer the one that the job was prepared for; "
                                           "submit a new job"));
  }
  return context;
}

absl::StatusOr<LayerResult> LoadLayerResult(const std::string& plan_sha256, LayerRound layer,
                                            const std::string& digest, const TaskEnvironment& env) {
  UQ_ASSIGN_OR_RETURN(const std::string json,
                      GetContent(env.work.get(), digest, kMaxLayerResultBytes));
  UQ_ASSIGN_OR_RETURN(LayerResult result, LayerResult::FromJson(json));
  if (result.plan_sha256 != plan_sha256 || result.layer != layer.layer ||
      result.round != layer.round) {
    return InvalidInput(
        "INVALID_LAYER_RESULT",
        absl::StrCat("object ", digest, " is the result of layer ", result.layer, " in round ",
                     result.round, " of plan ", result.plan_sha256, ", not of layer ", layer.layer,
                     " in round ", layer.round, " of plan ", plan_sha256));
  }
  return result;
}

absl::StatusOr<std::vector<LayerResult>> LoadLayerResults(const std::string& plan_sha256, int round,
                                                          const std::vector<std::string>& digests,
                                                          const TaskEnvironment& env) {
  std::vector<LayerResult> results;
  results.reserve(digests.size());
  for (const std::string& digest : digests) {
    const LayerRound layer = {static_cast<int>(results.size()), round};
    UQ_ASSIGN_OR_RETURN(LayerResult result, LoadLayerResult(plan_sha256, layer, digest, env));
    results.push_back(std::move(result));
  }
  return results;
}

DataOptions DataOptionsOf(const TaskEnvironment& env, DataPurpose purpose) {
  DataOptions options;
  options.store.stop = env.stop;
  options.store.observer = env.store_observer;
  options.access = env.data;
  options.purpose = purpose;
  return options;
}

const char* DeviceName(DeviceKind kind) { return kind == DeviceKind::kCuda ? "cuda" : "cpu"; }
const char* ArithmeticName(DType act) { return act == DType::kBfloat16 ? "bf16" : "f32"; }

absl::Status CancelledError() {
  return MakeError(absl::StatusCode::kCancelled, "TASK_CANCELLED", "the task was cancelled");
}

bool IsCancelled(const TaskEnvironment& env) { return env.stop.StopRequested(); }

LossHistory HistoryOf(const std::vector<float>& curve, int64_t num_steps) {
  LossHistory history;
  const auto count = static_cast<int64_t>(curve.size());
  for (int64_t i = 0; i < count; ++i) history.Append((i + 1) * num_steps / count, curve[i]);
  return history;
}

void ReportProgress(const TaskEnvironment& env, const char* phase, int64_t step, int64_t num_steps,
                    double loss) {
  if (!env.progress) return;
  TaskStepProgress progress;
  progress.phase = phase;
  progress.step = step;
  progress.num_steps = num_steps;
  progress.loss = loss;
  env.progress(progress);
}

std::string RunFactsKey(const std::string& task) { return absl::StrCat("runs/", task, ".json"); }

}  // namespace uniquanf
