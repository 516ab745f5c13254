// The window task: several layers, already quantized, are distilled together against the original
// model's output; then they are stored anew.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/safetensors/safetensors.h"
#include "worker/distill/window.h"
#include "worker/task/content_store.h"
#include "worker/task/layer_inputs.h"
#include "worker/task/layer_load.h"
#include "worker/task/layer_optimize.h"
#include "worker/task/layer_shard.h"
#include "worker/task/layer_store.h"
#include "worker/task/lost_inputs.h"
#include "worker/task/run_facts.h"
#include "worker/task/window_inputs.h"
#include "worker/task/window_memory.h"
#include "worker/task/window_result.h"

namespace uniquanf {
namespace {

constexpr size_t kMaxCurvePoints = 256;

class WindowRun {
 public:
  WindowRun(TaskContext context, std::string plan_sha256, int first_layer,
            const TaskEnvironment& env)
      : context_(std::move(context)),
        plan_(context_.plan),
        config_(context_.checkpoint->config()),
        plan_sha256_(std::move(plan_sha256)),
        first_(first_layer),
        end_(std::min(first_layer + DistillWindow(plan_), plan_.num_layers)),
        env_(env) {}

  absl::StatusOr<WindowResult> Run(const std::vector<std::string>& inputs) {
    UQ_RETURN_IF_ERROR(LoadResults(inputs));
    UQ_ASSIGN_OR_RETURN(rope_, MakeRopeTables(env_.backend, config_.ropes, plan_.sequence_length));
    UQ_RETURN_IF_ERROR(ObtainInputs());
    UQ_RETURN_IF_ERROR(LoadLayers());
    UQ_RETURN_IF_ERROR(Train());
    return std::move(result_);
  }

 private:
  ActivationCacheImpl* cache() const { return static_cast<ActivationCacheImpl*>(env_.cache); }
  bool is_last() const { return end_ == plan_.num_layers; }

  // Those of the windows before, which hold the layers before, then of the layers from first_ on.
  absl::Status LoadResults(const std::vector<std::string>& inputs) {
    const int window = DistillWindow(plan_), num_windows = first_ / window;
    const int num_layers = plan_.num_layers - first_;
    if (static_cast<int>(inputs.size()) != num_windows + num_layers) {
      return InvalidInput("INVALID_LAYER_RESULT",
                          absl::StrCat("the window at layer ", first_, " was given ", inputs.size(),
                                       " results instead of ", num_windows + num_layers));
    }
    for (int w = 0; w < num_windows; ++w) {
      UQ_ASSIGN_OR_RETURN(WindowResult before,
                          LoadWindowResult(plan_sha256_, w * window, inputs[w], env_));
      if (static_cast<int>(before.layers.size()) != window) {
        return InvalidInput("INVALID_WINDOW_RESULT",
                            absl::StrCat("object ", inputs[w], " holds ", before.layers.size(),
                                         " layers instead of ", window));
      }
      for (LayerResult& layer : before.layers) results_.push_back(std::move(layer));
    }
    const int round = NumRounds(plan_) - 1;
    for (int layer = first_; layer < plan_.num_layers; ++layer) {
      UQ_ASSIGN_OR_RETURN(LayerResult result,
                          LoadLayerResult(plan_sha256_, {layer, round},
                                          inputs[num_windows + layer - first_], env_));
      results_.push_back(std::move(result));
    }
    return absl::OkStatus();
  }

  absl::Status ObtainInputs() {
    std::optional<WindowInputs> cached;
    if (cache() != nullptr) {
      cached = cache()->TakeWindow(plan_sha256_, first_);
      cache()->Clear();  // of a block that was read ahead too
    }
    UQ_ASSIGN_OR_RETURN(
        keep_activations_,
        PlanWindowMemory(plan_, config_, first_, ReadAvailableMemory(*env_.backend, 0, 0), env_));
    if (cached.has_value()) {
      inputs_ = *std::move(cached);
      return absl::OkStatus();
    }
    UQ_ASSIGN_OR_RETURN(inputs_, RecomputeWindowInputs(context_, first_, results_, rope_, env_));
    return absl::OkStatus();
  }

  absl::Status LoadLayers() {
    for (int layer = first_; layer < plan_.num_layers; ++layer) {
      if (IsCancelled(env_)) return CancelledError();
      ReportProgress(env_, "loading", layer - first_, plan_.num_layers - first_);
      UQ_ASSIGN_OR_RETURN(const HostBlock stored, LoadStoredBlock(context_, results_[layer], env_));
      distill::WindowLayer& window = layers_.emplace_back();
      window.block = &config_.blocks[layer];
      UQ_ASSIGN_OR_RETURN(window.weights,
                          UploadBlock(env_.backend, *window.block, env_.act, stored));
      if (layer < end_) UQ_RETURN_IF_ERROR(StartStates(layer, &window));
    }
    return absl::OkStatus();
  }

  // Whether the layer's channels were scaled before it was quantized: then the stored weights stand
  // for others than the original's, and the latents begin at what is stored.
  static bool IsScaled(const LayerResult& result) { return result.num_folded > 0; }

  absl::Status StartStates(int layer, distill::WindowLayer* window) {
    const BlockSpec& block = *window->block;
    const LayerResult& result = results_[layer];
    UQ_ASSIGN_OR_RETURN(HostBlock original, context_.checkpoint->LoadBlock(layer));
    auto opened = SafetensorsFile::Open(env_.work, ContentKey(result.shard_sha256));
    if (!opened.ok()) return NoteWorkObject(opened.status(), result.shard_sha256);
    window->states.resize(block.num_linears());
    for (int l = 0; l < block.num_linears(); ++l) {
      const ModuleResult& module = result.modules[l];
      if (!module.quantized) continue;
      const absl::StatusOr<PackedLinear> packed =
          ReadPackedLinear(**opened, module.name, module.bits, module.num_outputs,
                           module.num_inputs, module.group_size);
      if (!packed.ok()) return NoteWorkObject(packed.status(), result.shard_sha256);
      std::vector<float> start;
      if (IsScaled(result)) {
        start.resize(packed->num_outputs * packed->num_inputs);
        Dequantize(*packed, start.data());
      }
      UQ_ASSIGN_OR_RETURN(
          quant::LatentState state,
          quant::StartLatents(env_.backend, Unpack(*packed),
                              start.empty() ? original[block.linears[l]].data() : start.data()));
      window->states[l] = std::make_unique<quant::LatentState>(std::move(state));
    }
    originals_.push_back(std::make_shared<const HostBlock>(std::move(original)));
    return absl::OkStatus();
  }

  absl::Status Train() {
    const WindowSequences sequences = SequencesOf(plan_);
    const auto row_of = [this](int64_t sequence) -> int64_t {
      return std::lower_bound(inputs_.sequences.begin(), inputs_.sequences.end(), sequence) -
             inputs_.sequences.begin();
    };
    distill::WindowData data;
    data.x = &inputs_.x;
    data.target = &inputs_.target;
    for (const int64_t sequence : sequences.training) data.training.push_back(row_of(sequence));
    for (const int64_t sequence : sequences.judges) data.judges.push_back(row_of(sequence));
    distill::WindowOptions options;
    options.num_steps = plan_.spec.distill_steps;
    options.batch_size = plan_.spec.distill_batch_size;
    options.latent_rate = plan_.spec.distill_learning_rate;
    options.scale_rate = plan_.spec.distill_scale_learning_rate;
    options.keep_activations = keep_activations_;
    UQ_ASSIGN_OR_RETURN(const std::unique_ptr<distill::WindowTrainer> trainer,
                        distill::WindowTrainer::Create(env_.backend, *context_.checkpoint, env_.act,
                                                       rope_, options, &data, &layers_));
    UQ_ASSIGN_OR_RETURN(const distill::WindowOutcome outcome,
                        trainer->Train(
                            [this](const distill::WindowProgress& progress) {
                              ReportProgress(env_, "distilling", progress.step, progress.num_steps,
                                             progress.loss);
                            },
                            [this] { return IsCancelled(env_); }));
    result_.plan_sha256 = plan_sha256_;
    result_.first_layer = first_;
    result_.environment = env_.backend->description();
    result_.initial_divergence = outcome.initial_divergence;
    result_.best_step = outcome.best_step;
    result_.loss_curve = Condense(outcome.losses, kMaxCurvePoints);
    UQ_RETURN_IF_ERROR(StoreLayers(outcome.best_step > 0, trainer.get()));
    return HandOn();
  }

  // The trained layers take their stored form, on the device too; where the start was the best,
  // they are what they were.
  absl::Status StoreLayers(bool changed, distill::WindowTrainer* trainer) {
    ReportProgress(env_, "storing", 0, 1);
    std::vector<std::unique_ptr<StoringShard>> storing;
    for (int layer = first_; changed && layer < end_; ++layer) {
      UQ_ASSIGN_OR_RETURN(storing.emplace_back(), StartStoring(layer));
    }
    if (!changed) {
      for (int layer = first_; layer < end_; ++layer) {
        UQ_RETURN_IF_ERROR(RestoreStored(layer));
        result_.layers.push_back(results_[layer]);
      }
    }
    UQ_ASSIGN_OR_RETURN(result_.final_divergence, trainer->Judge());
    for (size_t i = 0; i < storing.size(); ++i) {
      LayerResult result = results_[first_ + i];
      UQ_ASSIGN_OR_RETURN(StoredShard shard, storing[i]->Wait());
      for (size_t l = 0; IsScaled(result) && l < shard.modules.size(); ++l) {
        shard.modules[l].weight_error = result.modules[l].weight_error;
        shard.modules[l].num_underflowed = result.modules[l].num_underflowed;
      }
      result.modules = std::move(shard.modules);
      result.shard_sha256 = shard.sha256;
      result.shard_size_bytes = shard.size_bytes;
      result.changed_vectors = ChangedNames(first_ + static_cast<int>(i));
      result_.layers.push_back(std::move(result));
    }
    return absl::OkStatus();
  }

  // What the layer's shard holds otherwise than the source: what is trained, and what its own task
  // scaled.
  std::vector<int> Changed(int layer) const {
    const BlockSpec& block = config_.blocks[layer];
    std::vector<int> changed = distill::TrainedGains(block);
    for (const std::string& name : results_[layer].changed_vectors) {
      const int tensor = block.FindTensor(name);
      if (std::find(changed.begin(), changed.end(), tensor) == changed.end()) {
        changed.push_back(tensor);
      }
    }
    return changed;
  }

  std::vector<std::string> ChangedNames(int layer) const {
    std::vector<std::string> names;
    for (const int tensor : Changed(layer)) {
      names.push_back(config_.blocks[layer].tensors[tensor].stored.name);
    }
    return names;
  }

  absl::StatusOr<std::unique_ptr<StoringShard>> StartStoring(int layer) {
    distill::WindowLayer& window = layers_[layer - first_];
    const BlockSpec& block = *window.block;
    auto task = std::make_shared<const LayerTask>(
        MakeLayerTask(context_, plan_sha256_, {layer, results_[layer].round}, env_));
    auto storing = std::make_unique<StoringShard>(std::move(task), originals_[layer - first_]);
    for (int l = 0; l < block.num_linears(); ++l) {
      const auto& state = window.states[l];
      if (state == nullptr) continue;
      UQ_ASSIGN_OR_RETURN(UnifiedLinear unified, quant::UnifyLatents(env_.backend, *state));
      UQ_RETURN_IF_ERROR(WriteStored(env_.backend, unified,
                                     {&state->codes, state->bits, state->group_size},
                                     &window.weights[block.linears[l]]));
      storing->Pack(l, std::move(unified));
    }
    std::map<std::string, std::string> changed;
    for (const int tensor : Changed(layer)) {
      const StoredForm& form = block.tensors[tensor].stored;
      UQ_ASSIGN_OR_RETURN(const SourceTensor raw,
                          context_.checkpoint->FindRaw(config_.LayerPrefix(layer) + form.name));
      UQ_ASSIGN_OR_RETURN(std::vector<float> values, window.weights[tensor].ToFloats());
      for (float& value : values) value -= form.added;
      std::vector<float> stored = RoundedTo(values, raw.info.dtype);
      for (float& value : stored) value += form.added;
      UQ_RETURN_IF_ERROR(window.weights[tensor].CopyFromFloats(stored.data()));
      changed[form.name] = AsStored(values, raw.info.dtype);
    }
    storing->SetChanged(std::move(changed));
    storing->Write();
    return storing;
  }

  absl::Status RestoreStored(int layer) {
    UQ_ASSIGN_OR_RETURN(const HostBlock stored, LoadStoredBlock(context_, results_[layer], env_));
    distill::WindowLayer& window = layers_[layer - first_];
    for (size_t tensor = 0; tensor < stored.size(); ++tensor) {
      UQ_RETURN_IF_ERROR(window.weights[tensor].CopyFromFloats(stored[tensor].data()));
    }
    return absl::OkStatus();
  }

  // The next window's inputs, for whoever runs it on this device.
  absl::Status HandOn() {
    if (cache() == nullptr || is_last()) return absl::OkStatus();
    for (int layer = first_; layer < end_; ++layer) {
      if (IsCancelled(env_)) return CancelledError();
      UQ_RETURN_IF_ERROR(ForwardBlock(env_.backend, config_.blocks[layer], rope_,
                                      layers_[layer - first_].weights, inputs_.x, &inputs_.x,
                                      env_.stop));
    }
    cache()->PutWindow(plan_sha256_, end_, std::move(inputs_));
    return absl::OkStatus();
  }

  const TaskContext context_;
  const Plan& plan_;
  const ModelConfig& config_;
  const std::string plan_sha256_;
  const int first_, end_;  // layers of the window
  const TaskEnvironment& env_;
  std::vector<LayerResult> results_;  // by layer: distilled ones, then as they were quantized
  RopeTables rope_;
  WindowInputs inputs_;
  bool keep_activations_ = false;
  std::vector<distill::WindowLayer> layers_;  // from first_ on
  std::vector<std::shared_ptr<const HostBlock>> originals_;
  WindowResult result_;
};

}  // namespace

absl::StatusOr<WindowTaskOutcome> RunWindow(const QuantizationSpec& spec,
                                            const std::string& plan_sha256, int first_layer,
                                            const std::vector<std::string>& inputs,
                                            const TaskEnvironment& env) {
  const absl::Duration start = env.clock->Monotonic();
  UQ_ASSIGN_OR_RETURN(TaskContext context, OpenTaskContext(spec, plan_sha256, env));
  const int window = DistillWindow(context.plan);
  if (window == 0 || first_layer < 0 || first_layer >= context.plan.num_layers ||
      first_layer % window != 0) {
    return InvalidInput("WINDOW_OUT_OF_RANGE",
                        absl::StrCat("no window of ", window, " layers begins at layer ",
                                     first_layer, " of a model with ", context.plan.num_layers));
  }
  WindowRun run(std::move(context), plan_sha256, first_layer, env);
  UQ_ASSIGN_OR_RETURN(const WindowResult result, run.Run(inputs));
  WindowTaskOutcome outcome;
  outcome.initial_divergence = result.initial_divergence;
  outcome.final_divergence = result.final_divergence;
  outcome.history = HistoryOf(result.loss_curve, spec.distill_steps);
  UQ_ASSIGN_OR_RETURN(outcome.result_sha256, PutContent(env.work.get(), result.ToJson()));
  UQ_CRASH_POINT("distill.result_stored");
  WriteRunFacts(env, TaskId({TaskKind::kDistill, first_layer, 0}), env.clock->Monotonic() - start);
  return outcome;
}

}  // namespace uniquanf
