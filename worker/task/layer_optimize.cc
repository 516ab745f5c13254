#include "worker/task/layer_optimize.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>

#include "common/base/random.h"
#include "common/base/status.h"
#include "worker/quant/kept_start.h"
#include "worker/quant/method.h"
#include "worker/quant/quantizer.h"
#include "worker/quant/reconstruct.h"
#include "worker/quant/uniform_grids.h"
#include "worker/task/content_store.h"
#include "worker/task/layer_solve.h"
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

// The beginning of one linear layer; `importance` null: the method's own.
absl::Status Start(const LayerTask& task, const quant::InitOptions& options,
                   const Tensor* importance, quant::QuantizerState* state) {
  const quant::Method& method = quant::MethodOf(task.plan().spec.method);
  const Levels levels = task.plan().spec.levels;
  if (levels != Levels::kAny) {
    std::vector<float> values;
    if (importance != nullptr) {
      UQ_ASSIGN_OR_RETURN(values, importance->ToFloats());
    }
    return quant::StartOnGrids(levels, /*search=*/importance != nullptr, values, state);
  }
  method.initialize(task.env.backend, options, state);
  if (importance != nullptr) {
    quant::ChooseStarts(task.env.backend, method.starts, *importance, state);
  }
  return absl::OkStatus();
}

// Whether a block whose training has not lowered its error is stored as it began: decided in the
// last round, where its inputs are the artifact's own.
bool KeepsBetterStart(const LayerTask& task) {
  return task.plan().spec.initialization == Initialization::kActivationAware &&
         task.at.round + 1 == task.num_rounds;
}

// The states, at their beginning where `fresh`, else undefined.
absl::Status Initialize(const LayerTask& task, bool fresh, Loaded* loaded, Optimized* optimized) {
  Backend* const backend = task.env.backend;
  const BlockSpec& block = task.block();
  const QuantizationSpec& spec = task.plan().spec;
  quant::InitOptions options;
  options.grid_steps = spec.grid_steps;
  options.alternating_rounds = spec.alternating_rounds;
  const quant::Method& method = quant::MethodOf(spec.method);
  const bool searches = spec.initialization == Initialization::kActivationAware &&
                        method.starts != quant::UniformStarts::kNone;
  std::vector<Tensor> importance;
  if (searches && fresh) {
    UQ_ASSIGN_OR_RETURN(importance, Importance(task, *loaded));
  }
  optimized->weights = std::move(loaded->weights);
  for (int l = 0; l < block.num_linears(); ++l) {
    if (IsCancelled(task.env)) return CancelledError();
    ReportProgress(task.env, "initializing", l, block.num_linears());
    if (SettingsOf(task.plan(), task.modules[l]).full_precision) continue;
    UQ_ASSIGN_OR_RETURN(optimized->states[l],
                        NewStateOf(task, l, &optimized->weights[block.linears[l]]));
    if (!fresh) continue;
    UQ_RETURN_IF_ERROR(
        Start(task, options, searches ? &importance[l] : nullptr, &*optimized->states[l]));
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

// Where the round before left the states.
absl::Status LoadStates(const LayerTask& task, const LayerResult& before, Optimized* optimized) {
  const std::string& digest = before.state_sha256;
  const auto state = SafetensorsFile::Open(task.env.work, ContentKey(digest));
  if (!state.ok()) return NoteWorkObject(state.status(), digest);
  for (size_t l = 0; l < optimized->states.size(); ++l) {
    if (!optimized->states[l].has_value()) continue;
    UQ_RETURN_IF_ERROR(LoadQuantizerState(**state, task.modules[l], &*optimized->states[l]));
  }
  return absl::OkStatus();
}

// What the block may be stored as instead of what training makes of it, and its error.
struct Alternative {
  quant::KeptStart start;
  double loss = 0;
};

quant::BlockActivations Activations(const LayerTask& task, const Loaded& loaded) {
  const LayerInputs& inputs = loaded.inputs;
  quant::BlockActivations activations;
  activations.x_fp = &inputs.x_fp;
  // The first layer's inputs are those of the original model.
  if (NeedsQuantizedInputs(task.plan().spec)) {
    activations.x_q = inputs.x_q.empty() ? &inputs.x_fp : &inputs.x_q;
  }
  activations.y_fp = &loaded.y_fp;
  return activations;
}

std::vector<quant::QuantizerState*> Pointers(Optimized* optimized) {
  std::vector<quant::QuantizerState*> states;
  for (auto& state : optimized->states) states.push_back(state ? &*state : nullptr);
  return states;
}

// The states as they are. REQUIRES: they are at a beginning.
absl::StatusOr<Alternative> MeasureStart(const LayerTask& task, const Loaded& loaded,
                                         Optimized* optimized) {
  Alternative measured_start;
  UQ_ASSIGN_OR_RETURN(measured_start.start,
                      quant::KeptStart::Save(task.env.backend, Pointers(optimized)));
  quant::ReconstructOptions options;
  options.batch_size = task.plan().spec.batch_size;
  options.input_prob = task.plan().spec.input_prob;
  const absl::StatusOr<quant::ReconstructResult> measured = quant::ReconstructBlock(
      task.env.backend, task.block(), loaded.rope, options, Activations(task, loaded),
      &optimized->weights, Pointers(optimized), nullptr, nullptr);
  if (ErrorReason(measured.status()) == "LOSS_NOT_FINITE") {
    return ExplainNotFinite(task, loaded, measured.status());
  }
  UQ_RETURN_IF_ERROR(measured.status());
  measured_start.loss = measured->initial_loss;
  return measured_start;
}

// Round to nearest at the same bits: inputs that are correlated can make the start that is the best
// by each group's own error a worse one for the block. The states are what they were before.
// REQUIRES: they are at their beginning.
absl::StatusOr<Alternative> MeasureRounded(const LayerTask& task, const Loaded& loaded,
                                           Optimized* optimized) {
  Backend* const backend = task.env.backend;
  const Levels levels = task.plan().spec.levels;
  const std::vector<quant::QuantizerState*> states = Pointers(optimized);
  UQ_ASSIGN_OR_RETURN(const quant::KeptStart start, quant::KeptStart::Save(backend, states));
  for (quant::QuantizerState* const state : states) {
    if (state == nullptr) continue;
    if (levels == Levels::kAny) {
      quant::MethodOf(QuantizationMethod::kRtn).initialize(backend, {}, state);
    } else {
      UQ_RETURN_IF_ERROR(quant::StartOnGrids(levels, /*search=*/false, {}, state));
    }
  }
  UQ_ASSIGN_OR_RETURN(Alternative rounded, MeasureStart(task, loaded, optimized));
  UQ_RETURN_IF_ERROR(start.Return(task.block(), states, &optimized->weights));
  return rounded;
}

absl::Status Reconstruct(const LayerTask& task, const std::vector<Alternative>& alternatives,
                         Loaded* loaded, Optimized* optimized) {
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
  options.keep_better_start = KeepsBetterStart(task) && task.num_rounds == 1;
  options.seed = LayerSeed(plan.spec.seed, task.at.layer);
  const std::vector<quant::QuantizerState*> states = Pointers(optimized);
  const absl::StatusOr<quant::ReconstructResult> finished = quant::ReconstructBlock(
      task.env.backend, task.block(), loaded->rope, options, Activations(task, *loaded),
      &optimized->weights, states,
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
  optimized->kept_start = reconstructed.kept_start;
  double least = reconstructed.final_loss;
  const Alternative* best = nullptr;
  for (const Alternative& alternative : alternatives) {
    // Of equals the beginning is taken, not what training made.
    const bool better = best == nullptr && !optimized->kept_start ? alternative.loss <= least
                                                                  : alternative.loss < least;
    if (!better) continue;
    best = &alternative;
    least = alternative.loss;
  }
  if (best != nullptr) {
    UQ_RETURN_IF_ERROR(best->start.Return(task.block(), states, &optimized->weights));
    optimized->kept_start = true;
  }
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

absl::StatusOr<quant::QuantizerState> NewStateOf(const LayerTask& task, int l, Tensor* weight) {
  const QuantizationSpec& spec = task.plan().spec;
  const TensorSpec& linear = task.block().linear(l);
  const ModuleSettings settings = SettingsOf(task.plan(), task.modules[l]);
  Tensor original = std::move(*weight);
  UQ_ASSIGN_OR_RETURN(*weight, Tensor::Allocate(task.env.backend, task.env.act, linear.shape));
  UQ_ASSIGN_OR_RETURN(
      quant::QuantizerState state,
      quant::NewQuantizerState(task.env.backend, std::move(original), settings.bits,
                               settings.group_size == 0 ? linear.num_inputs() : settings.group_size,
                               quant::MethodOf(spec.method).trained, spec.optimizer_state));
  state.rounding_seed = RoundingSeed(LayerSeed(spec.seed, task.at.layer), l);
  if (spec.initialization == Initialization::kActivationAware) {
    state.learning_rate_scale = quant::LearningRateScale(settings.bits);
  }
  return state;
}

absl::StatusOr<Optimized> OptimizeBlock(const LayerTask& task, Loaded* loaded) {
  Optimized optimized;
  optimized.states.resize(task.block().num_linears());
  UQ_ASSIGN_OR_RETURN(quant::ScaledBlock scaled, NewScaledBlock(task, *loaded));
  UQ_ASSIGN_OR_RETURN(optimized.num_folded, FoldBlock(task, loaded, &scaled));
  if (quant::MethodOf(task.plan().spec.method).solve != nullptr) {
    UQ_RETURN_IF_ERROR(SolveBlock(task, loaded, &scaled, &optimized));
  } else {
    const std::optional<LayerResult>& before = loaded->before;
    UQ_RETURN_IF_ERROR(
        Initialize(task, !before.has_value() || KeepsBetterStart(task), loaded, &optimized));
    std::vector<Alternative> alternatives;
    if (task.reconstructs && KeepsBetterStart(task)) {
      // In a run in one go ReconstructBlock keeps its start by itself.
      if (before.has_value()) {
        UQ_ASSIGN_OR_RETURN(alternatives.emplace_back(), MeasureStart(task, *loaded, &optimized));
      }
      UQ_ASSIGN_OR_RETURN(alternatives.emplace_back(), MeasureRounded(task, *loaded, &optimized));
    }
    if (before.has_value()) UQ_RETURN_IF_ERROR(LoadStates(task, *before, &optimized));
    if (task.reconstructs) UQ_RETURN_IF_ERROR(Reconstruct(task, alternatives, loaded, &optimized));
  }
  UQ_ASSIGN_OR_RETURN(optimized.changed_bytes, ChangedBytes(task, scaled));
  optimized.scaled = std::move(scaled.changed);
  return optimized;
}

}  // namespace uniquanf
