// The layer task: load, optimize, store; then measure what was stored.
#include "worker/task/layer_task.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "worker/task/content_store.h"
#include "worker/task/layer_load.h"
#include "worker/task/layer_measure.h"
#include "worker/task/layer_optimize.h"
#include "worker/task/layer_store.h"
#include "worker/task/run_facts.h"

namespace uniquanf {
namespace {

class StoringLayer : public UnstoredLayer {
 public:
  explicit StoringLayer(std::shared_ptr<const LayerTask> task) : task_(std::move(task)) {}

  // The device's part. Nothing is left on the device when it returns, but what went to the cache:
  // from then on other threads may have it. `start`: when the task began.
  absl::Status Optimize(const std::vector<std::string>* earlier, absl::Duration start) {
    const absl::Status status = OptimizeOrFail(earlier);
    device_time_ = task_->env.clock->Monotonic() - start;
    return status;
  }

  std::optional<LayerRound> NextAtHand() const override { return next_at_hand_; }

  absl::StatusOr<LayerOutcome> Store() override {
    UQ_ASSIGN_OR_RETURN(StoredShard shard, storing_->Wait());
    result_.modules = std::move(shard.modules);
    result_.weights_sha256 = shard.weights_sha256;
    result_.shard_sha256 = shard.sha256;
    result_.shard_size_bytes = shard.size_bytes;
    result_.plan_sha256 = task_->plan_sha256;
    result_.layer = task_->at.layer;
    result_.round = task_->at.round;
    LayerOutcome outcome;
    outcome.initial_loss = result_.initial_loss;
    outcome.final_loss = result_.final_loss;
    outcome.kept_start = result_.kept_start;
    outcome.num_folded = result_.num_folded;
    outcome.device_seconds = absl::ToDoubleSeconds(device_time_);
    outcome.history =
        HistoryOf(result_.loss_curve, RoundSteps(task_->plan(), task_->at.round).second);
    for (const ModuleResult& module : result_.modules) {
      outcome.modules.push_back({module.name, module.quantized ? module.bits : 0, module.group_size,
                                 module.weight_error, module.num_saturated});
    }
    UQ_ASSIGN_OR_RETURN(outcome.result_sha256, PutContent(task_->env.work.get(), result_.ToJson()));
    UQ_CRASH_POINT("layer.result_stored");
    WriteRunFacts(task_->env, LayerTaskName(task_->at), device_time_);
    return outcome;
  }

 private:
  absl::Status OptimizeOrFail(const std::vector<std::string>* earlier) {
    Loaded loaded;
    const absl::Status status = RunOnDevice(earlier, &loaded);
    if (absl::IsCancelled(status) && task_->cache() != nullptr && HasInputs(*task_, loaded)) {
      task_->cache()->Put(task_->plan_sha256, task_->at, std::move(loaded.inputs));
    }
    return status;
  }

  absl::Status RunOnDevice(const std::vector<std::string>* earlier, Loaded* loaded) {
    const LayerTask& task = *task_;
    UQ_RETURN_IF_ERROR(LoadInputs(task, earlier, loaded));
    if (IsCancelled(task.env)) return CancelledError();
    UQ_RETURN_IF_ERROR(LoadWeights(task, loaded));
    result_.warnings = DoubtsAbout(task, *loaded->original);
    storing_ = std::make_unique<StoringShard>(task_, loaded->original);
    if (task.reconstructs) UQ_RETURN_IF_ERROR(ComputeTargets(task, loaded));
    UQ_ASSIGN_OR_RETURN(Optimized optimized, OptimizeBlock(task, loaded));
    result_.initial_loss = optimized.initial_loss;
    result_.loss_curve = std::move(optimized.loss_curve);
    result_.kept_start = optimized.kept_start;
    result_.num_folded = optimized.num_folded;
    for (const auto& [name, bytes] : optimized.changed_bytes) {
      result_.changed_vectors.push_back(name);
    }
    ReportProgress(task.env, "storing", 0, 1);
    if (task.at.round + 1 < task.num_rounds) {
      UQ_ASSIGN_OR_RETURN(const std::string state, SaveLayerState(task.modules, optimized.states));
      UQ_ASSIGN_OR_RETURN(result_.state_sha256, PutContent(task.env.work.get(), state));
    }
    UQ_RETURN_IF_ERROR(StartStoring(task, &optimized, storing_.get()));
    if (task.reconstructs) {
      UQ_ASSIGN_OR_RETURN(const Measured measured,
                          MeasureAndHandOn(task, optimized.weights, loaded));
      result_.final_loss = measured.final_loss;
      if (!Trains(task.plan().spec)) result_.initial_loss = result_.final_loss;
      next_at_hand_ = measured.next_at_hand;
    }
    result_.environment = task.env.backend->description();
    return absl::OkStatus();
  }

  const std::shared_ptr<const LayerTask> task_;
  absl::Duration device_time_;
  std::optional<LayerRound> next_at_hand_;
  LayerResult result_;
  std::unique_ptr<StoringShard> storing_;  // from when the weights are there
};

}  // namespace

absl::StatusOr<std::unique_ptr<UnstoredLayer>> OptimizeLayer(
    const QuantizationSpec& spec, const std::string& plan_sha256, LayerRound layer_round,
    const std::vector<std::string>* earlier, const TaskEnvironment& env) {
  const absl::Duration start = env.clock->Monotonic();
  const auto [layer, round] = layer_round;
  UQ_ASSIGN_OR_RETURN(TaskContext context, OpenTaskContext(spec, plan_sha256, env));
  if (layer < 0 || layer >= context.plan.num_layers) {
    return InvalidInput("LAYER_OUT_OF_RANGE", absl::StrCat("layer ", layer, " of a model with ",
                                                           context.plan.num_layers, " layers"));
  }
  const int num_rounds = NumRounds(context.plan);
  if (round < 0 || round >= num_rounds) {
    return InvalidInput("ROUND_OUT_OF_RANGE",
                        absl::StrCat("round ", round, " of a job with ", num_rounds, " rounds"));
  }
  auto layer_run = std::make_unique<StoringLayer>(std::make_shared<const LayerTask>(
      MakeLayerTask(std::move(context), plan_sha256, layer_round, env)));
  UQ_RETURN_IF_ERROR(layer_run->Optimize(earlier, start));
  return std::unique_ptr<UnstoredLayer>(std::move(layer_run));
}

absl::StatusOr<LayerOutcome> RunLayer(const QuantizationSpec& spec, const std::string& plan_sha256,
                                      int layer, const std::vector<std::string>& earlier,
                                      const TaskEnvironment& env, int round) {
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<UnstoredLayer> unstored,
                      OptimizeLayer(spec, plan_sha256, {layer, round}, &earlier, env));
  return unstored->Store();
}

}  // namespace uniquanf
