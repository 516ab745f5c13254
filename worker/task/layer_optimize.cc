#include "worker/task/layer_optimize.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <tuple>
#include <utility>

#include "common/base/random.h"
#include "common/base/status.h"
#include "worker/quant/method.h"
#include "worker/quant/quantizer.h"
#include "worker/quant/reconstruct.h"
#include "worker/task/content_store.h"
#include "worker/task/lost_inputs.h"

namespace uniquanf {
namespace {

constexpr size_t kMaxCurvePoints = 256;

uint64_t LayerSeed(uint64_t seed, int layer) {
  const Philox4 words = PhiloxAt(seed, /*stream=*/0x6C61796572 /* "layer" */, layer);
  return static_cast<uint64_t>(words.v[1]) << 32 | words.v[0];
}

// Of the moments of linear layer l.
uint32_t RoundingSeed(uint64_t layer_seed, int l) {
  return PhiloxAt(layer_seed, /*stream=*/0x726F756E64 /* "round" */, l).v[0];
}

// By linear: how much an error of each weight matters. All the same where nothing is known.
absl::StatusOr<std::vector<Tensor>> Importance(const LayerTask& task, const Loaded& loaded) {
  const BlockSpec& block = task.block();
  if (task.reconstructs) {
    const LayerInputs& inputs = loaded.inputs;
    return quant::MeasureImportance(task.env.backend, block, loaded.rope, loaded.weights,
                                    inputs.x_q.empty() ? inputs.x_fp : inputs.x_q);
  }
  std::vector<Tensor> importance;
  for (int l = 0; l < block.num_linears(); ++l) {
    UQ_ASSIGN_OR_RETURN(Tensor ones,
                        quant::EqualImportance(task.env.backend, block.linear(l).num_inputs()));
    importance.push_back(std::move(ones));
  }
  return importance;
}

// The states' beginning, or where the round before left them.
absl::Status Initialize(const LayerTask& task, Loaded* loaded, Optimized* optimized) {
  Backend* const backend = task.env.backend;
  const BlockSpec& block = task.block();
  const QuantizationSpec& spec = task.plan().spec;
  quant::InitOptions options;
  options.grid_steps = spec.grid_steps;
  options.alternating_rounds = spec.alternating_rounds;
  const quant::Method& method = quant::MethodOf(spec.method);
  std::shared_ptr<const SafetensorsFile> state;
  if (loaded->before.has_value()) {
    const std::string& digest = loaded->before->state_sha256;
    auto opened = SafetensorsFile::Open(task.env.work, ContentKey(digest));
    if (!opened.ok()) return NoteWorkObject(opened.status(), digest);
    state = *std::move(opened);
  }
  const bool searches = spec.initialization == Initialization::kActivationAware &&
                        method.starts != quant::UniformStarts::kNone;
  std::vector<Tensor> importance;
  if (searches && state == nullptr) {
    UQ_ASSIGN_OR_RETURN(importance, Importance(task, *loaded));
  }
  optimized->weights = std::move(loaded->weights);
  for (int l = 0; l < block.num_linears(); ++l) {
    if (IsCancelled(task.env)) return CancelledError();
    ReportProgress(task.env, "initializing", l, block.num_linears());
    const ModuleSettings settings = SettingsForModule(spec, task.modules[l]);
    if (settings.full_precision) continue;
    const TensorSpec& linear = block.linear(l);
    const int64_t group_size = settings.group_size == 0 ? linear.num_inputs() : settings.group_size;
    Tensor& w_hat = optimized->weights[block.linears[l]];
    Tensor weight = std::move(w_hat);
    UQ_ASSIGN_OR_RETURN(w_hat, Tensor::Allocate(backend, task.env.act, linear.shape));
    UQ_ASSIGN_OR_RETURN(optimized->states[l],
                        quant::NewQuantizerState(backend, std::move(weight), settings.bits,
                                                 group_size, method.trained, spec.optimizer_state));
    optimized->states[l]->rounding_seed = RoundingSeed(LayerSeed(spec.seed, task.at.layer), l);
    if (spec.initialization == Initialization::kActivationAware) {
      optimized->states[l]->learning_rate_scale = quant::LearningRateScale(settings.bits);
    }
    if (state != nullptr) {
      UQ_RETURN_IF_ERROR(LoadQuantizerState(*state, task.modules[l], &*optimized->states[l]));
      continue;
    }
    method.initialize(backend, options, &*optimized->states[l]);
    if (!searches) continue;
    quant::ChooseStarts(backend, method.starts, importance[l], &*optimized->states[l]);
  }
  return backend->Synchronize();
}

// The first sequence with a value that is not finite, and whether that is NaN; −1: there is none.
absl::StatusOr<std::pair<int64_t, bool>> FindNotFinite(const LayerTask& task,
                                                       const SequenceBuffer& hidden) {
  const Shape& shape = hidden.shape();
  UQ_ASSIGN_OR_RETURN(Tensor one,
                      Tensor::Allocate(task.env.backend, hidden.dtype(), {1, shape[1], shape[2]}));
  for (int64_t s = 0; s < shape[0]; ++s) {
    UQ_RETURN_IF_ERROR(hidden.Load(s, 0, &one));
    UQ_ASSIGN_OR_RETURN(const std::vector<float> values, one.ToFloats());
    for (const float value : values) {
      if (!std::isfinite(value)) return std::pair<int64_t, bool>(s, std::isnan(value));
    }
  }
  return std::pair<int64_t, bool>(-1, false);
}

// Why a layer's loss is not finite, in place of `status`, which says that it is: where the original
// model itself leaves the range of numbers no setting of the job can help.
absl::Status ExplainNotFinite(const LayerTask& task, const Loaded& loaded, absl::Status status) {
  const std::pair<const SequenceBuffer*, const char*> buffers[] = {{&loaded.inputs.x_fp, "gets"},
                                                                   {&loaded.y_fp, "gives"}};
  for (const auto& [buffer, verb] : buffers) {
    if (buffer->empty()) continue;
    const auto found = FindNotFinite(task, *buffer);
    if (!found.ok()) break;
    if (found->first < 0) continue;
    return InvalidInput(
        "ACTIVATIONS_NOT_FINITE",
        absl::StrCat("layer ", task.at.layer, " of the original ", verb, " ",
                     found->second ? "NaN" : "infinities", " for calibration sequence ",
                     found->first, ", in ", ArithmeticName(task.env.act),
                     ", before anything is quantized: its weights are damaged, or beyond the "
                     "arithmetic's range. Check the checkpoint"));
  }
  return Annotate(status, absl::StrCat("layer ", task.at.layer));
}

absl::Status Reconstruct(const LayerTask& task, Loaded* loaded, Optimized* optimized) {
  const Plan& plan = task.plan();
  LayerInputs& inputs = loaded->inputs;
  quant::ReconstructOptions options;
  options.batch_size = plan.spec.batch_size;
  options.num_steps = NumSteps(plan);
  std::tie(options.first_step, options.end_step) = RoundSteps(plan, task.at.round);
  options.input_prob = InputProb(plan, task.at.round);
  options.uniform_learning_rate = plan.spec.uniform_learning_rate;
  options.binary_learning_rate = plan.spec.binary_learning_rate;
  options.remap_period = plan.spec.remap_period;
  // Between two rounds a state is no initialization.
  options.keep_better_start =
      plan.spec.initialization == Initialization::kActivationAware && task.num_rounds == 1;
  options.seed = LayerSeed(plan.spec.seed, task.at.layer);
  quant::BlockActivations activations;
  activations.x_fp = &inputs.x_fp;
  // The first layer's inputs are those of the original model.
  if (NeedsQuantizedInputs(plan.spec)) {
    activations.x_q = inputs.x_q.empty() ? &inputs.x_fp : &inputs.x_q;
  }
  activations.y_fp = &loaded->y_fp;
  std::vector<quant::QuantizerState*> states;
  for (auto& state : optimized->states) states.push_back(state ? &*state : nullptr);
  const absl::StatusOr<quant::ReconstructResult> finished = quant::ReconstructBlock(
      task.env.backend, task.block(), loaded->rope, options, activations, &optimized->weights,
      states,
      [&task](const quant::ReconstructProgress& progress) {
        ReportProgress(task.env, "reconstructing", progress.step, progress.num_steps,
                       progress.loss);
      },
      [&task] {
        if (task.cache() != nullptr) task.cache()->next_block().Poll();
        return IsCancelled(task.env);
      });
  if (ErrorReason(finished.status()) == "LOSS_NOT_FINITE") {
    return ExplainNotFinite(task, *loaded, finished.status());
  }
  UQ_RETURN_IF_ERROR(finished.status());
  const quant::ReconstructResult& reconstructed = *finished;
  optimized->initial_loss = reconstructed.initial_loss;
  optimized->loss_curve = Condense(reconstructed.losses, kMaxCurvePoints / task.num_rounds);
  if (loaded->before.has_value()) {
    const LayerResult& before = *loaded->before;
    optimized->initial_loss = before.initial_loss;
    optimized->loss_curve.insert(optimized->loss_curve.begin(), before.loss_curve.begin(),
                                 before.loss_curve.end());
  }
  if (!inputs.x_q.empty()) {  // then x_fp's memory is needed more than its bits
    SequenceBuffer x_fp = std::move(inputs.x_fp);
    if (!x_fp.on_device()) inputs.spare = std::move(x_fp);
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<float> Condense(const std::vector<float>& losses, size_t max_points) {
  const size_t stride = (losses.size() + max_points - 1) / max_points;
  std::vector<float> curve;
  for (size_t start = 0; start < losses.size(); start += stride) {
    const size_t end = std::min(start + stride, losses.size());
    double sum = 0;
    for (size_t i = start; i < end; ++i) sum += losses[i];
    curve.push_back(static_cast<float>(sum / static_cast<double>(end - start)));
  }
  return curve;
}

absl::StatusOr<Optimized> OptimizeBlock(const LayerTask& task, Loaded* loaded) {
  Optimized optimized;
  optimized.states.resize(task.block().num_linears());
  UQ_RETURN_IF_ERROR(Initialize(task, loaded, &optimized));
  if (task.reconstructs) UQ_RETURN_IF_ERROR(Reconstruct(task, loaded, &optimized));
  return optimized;
}

}  // namespace uniquanf
