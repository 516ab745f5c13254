// The layer task: initialize, reconstruct, unify, store; then measure what was stored.
#include "worker/task/layer_task.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <future>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "common/artifact/layout.h"
#include "common/base/crash_point.h"
#include "common/base/digest.h"
#include "common/base/parallel.h"
#include "common/base/random.h"
#include "common/base/status.h"
#include "worker/model/language_model.h"
#include "worker/quant/method.h"
#include "worker/quant/quantizer.h"
#include "worker/quant/reconstruct.h"
#include "worker/task/content_store.h"
#include "worker/task/layer_inputs.h"
#include "worker/task/layer_shard.h"
#include "worker/task/layer_state.h"
#include "worker/task/lost_inputs.h"
#include "worker/task/memory_plan.h"
#include "worker/task/run_facts.h"
#include "worker/task/task_context.h"
#include "worker/task/task_runner.h"

namespace uniquanf {
namespace {

using quant::QuantizerState;

constexpr size_t kMaxCurvePoints = 256;

uint64_t LayerSeed(uint64_t seed, int layer) {
  const Philox4 words = PhiloxAt(seed, /*stream=*/0x6C61796572 /* "layer" */, layer);
  return static_cast<uint64_t>(words.v[1]) << 32 | words.v[0];
}

// Digest of the digests of the linear weights as float32.
std::string WeightsDigest(const BlockSpec& spec, const HostBlock& block) {
  std::vector<std::string> digests(spec.num_linears());
  ParallelRanges(spec.num_linears(), 1, [&](int64_t l, int64_t) {
    const std::vector<float>& weight = block[spec.linears[l]];
    digests[l] = Sha256Hex(absl::string_view(reinterpret_cast<const char*>(weight.data()),
                                             weight.size() * sizeof(float)));
  });
  return Sha256Hex(absl::StrJoin(digests, "\n"));
}

// Means of consecutive steps, so that a curve stays small.
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

// Mean squared difference between the stored weights and the original ones, `weight` [N, K]. The
// order of summation is fixed: within a row, then over rows.
double StoredError(const PackedLinear& packed, const std::vector<float>& weight) {
  const int64_t width = packed.num_inputs;
  std::vector<double> sums(packed.num_outputs);
  ParallelRanges(packed.num_outputs, 64, [&](int64_t begin, int64_t end) {
    std::vector<float> stored((end - begin) * width);
    DequantizeRows(packed, begin, end, stored.data());
    for (int64_t row = begin; row < end; ++row) {
      const float* original = weight.data() + row * width;
      const float* now = stored.data() + (row - begin) * width;
      for (int64_t k = 0; k < width; ++k) {
        const double error = static_cast<double>(original[k]) - now[k];
        sums[row] += error * error;
      }
    }
  });
  double sum = 0;
  for (double row : sums) sum += row;
  return sum / static_cast<double>(weight.size());
}

// One layer's run, step by step; the members are what the steps hand on.
class LayerRun : public UnstoredLayer {
 public:
  // The device's part starts now.
  LayerRun(TaskContext context, std::string plan_sha256, LayerRound layer_round,
           const TaskEnvironment& env, absl::Duration start)
      : context_(std::move(context)),
        plan_(context_.plan),
        plan_sha256_(std::move(plan_sha256)),
        layer_(layer_round.layer),
        round_(layer_round.round),
        num_rounds_(NumRounds(context_.plan)),
        block_(context_.checkpoint->config().blocks[layer_round.layer]),
        modules_(context_.checkpoint->config().ModuleNames(layer_round.layer)),
        env_(env),
        start_(start),
        states_(block_.num_linears()),
        packed_(block_.num_linears()),
        packing_(block_.num_linears()) {}

  // `earlier` may be null (OptimizeLayer).
  absl::Status Optimize(const std::vector<std::string>* earlier) {
    const absl::Status status = OptimizeOrFail(earlier);
    if (absl::IsCancelled(status) && HasInputs() && cache() != nullptr) {
      cache()->Put(plan_sha256_, {layer_, round_}, std::move(inputs_));
    }
    ReleaseDevice();
    elapsed_ = env_.clock->Monotonic() - start_;
    return status;
  }

  std::optional<LayerRound> NextAtHand() const override { return next_at_hand_; }

  absl::StatusOr<LayerOutcome> Store() override {
    UQ_ASSIGN_OR_RETURN(const StoredShard shard, shard_.get());
    result_.weights_sha256 = weights_sha256_.get();
    result_.shard_sha256 = shard.sha256;
    result_.shard_size_bytes = shard.size_bytes;
    result_.plan_sha256 = plan_sha256_;
    result_.layer = layer_;
    result_.round = round_;
    LayerOutcome outcome;
    outcome.initial_loss = result_.initial_loss;
    outcome.final_loss = result_.final_loss;
    outcome.device_seconds = absl::ToDoubleSeconds(elapsed_);
    UQ_ASSIGN_OR_RETURN(outcome.result_sha256, PutContent(env_.work.get(), result_.ToJson()));
    UQ_CRASH_POINT("layer.result_stored");
    WriteRunFacts(env_, LayerTaskName({layer_, round_}), elapsed_);
    return outcome;
  }

 private:
  absl::Status OptimizeOrFail(const std::vector<std::string>* given) {
    ReadAhead(layer_, /*copy=*/true);  // the plan has room for it
    std::vector<std::string> earlier;
    if (given != nullptr) earlier = *given;
    if (round_ > 0) {
      if (earlier.empty()) {
        return InvalidInput("INVALID_LAYER_RESULT",
                            absl::StrCat("round ", round_, " of layer ", layer_,
                                         " needs the layer's result of the round before"));
      }
      UQ_ASSIGN_OR_RETURN(
          before_, LoadLayerResult(plan_sha256_, {layer_, round_ - 1}, earlier.back(), env_));
      earlier.pop_back();
    }
    if (NeedsReconstruction(plan_.spec)) {
      UQ_ASSIGN_OR_RETURN(rope_, MakeRopeTables(env_.backend, context_.checkpoint->config().ropes,
                                                plan_.sequence_length));
      UQ_RETURN_IF_ERROR(ObtainInputs(given == nullptr ? nullptr : &earlier));
    }
    if (NeedsReconstruction(plan_.spec)) UQ_RETURN_IF_ERROR(WarmUp());
    if (IsCancelled(env_)) return CancelledError();
    ReportProgress(env_, "loading", 0, 1);
    std::vector<Tensor> copied_ahead;
    UQ_RETURN_IF_ERROR(LoadOriginal(&copied_ahead));
    UQ_ASSIGN_OR_RETURN(
        weights_, UploadBlock(env_.backend, block_, env_.act, original_, std::move(copied_ahead)));
    // Hashed while the device works.
    weights_sha256_ =
        std::async(std::launch::async, WeightsDigest, std::cref(block_), std::cref(original_));
    if (NeedsReconstruction(plan_.spec)) {
      ReportProgress(env_, "activations", 0, 2);
      const Shape& shape = inputs_.x_fp.shape();
      if (!inputs_.spare.empty() && inputs_.spare.shape() == shape) {
        y_fp_ = std::move(inputs_.spare);
      } else {
        UQ_ASSIGN_OR_RETURN(
            y_fp_, SequenceBuffer::Allocate(env_.backend, memory_.activations, env_.act, shape[0],
                                            shape[1], shape[2]));
      }
      UQ_RETURN_IF_ERROR(ForwardBlock(env_.backend, block_, rope_, weights_, inputs_.x_fp, &y_fp_,
                                      env_.cancelled));
    }
    UQ_RETURN_IF_ERROR(Initialize());
    if (NeedsReconstruction(plan_.spec)) UQ_RETURN_IF_ERROR(Reconstruct());
    UQ_RETURN_IF_ERROR(StartStoring());
    if (NeedsReconstruction(plan_.spec)) UQ_RETURN_IF_ERROR(MeasureAndHandOn());
    result_.environment = env_.backend->description();
    return absl::OkStatus();
  }

  bool HasInputs() const {
    return !inputs_.x_fp.empty() &&
           (layer_ == 0 || !inputs_.x_q.empty() || !NeedsQuantizedInputs(plan_.spec));
  }

  // From here on other threads may have the device.
  void ReleaseDevice() {
    inputs_ = LayerInputs();
    y_fp_ = SequenceBuffer();
    weights_ = BlockWeights();
    rope_ = RopeTables();
    for (auto& state : states_) state.reset();
  }

  absl::Status CannotRunAhead() const {
    return MakeError(absl::StatusCode::kFailedPrecondition, kInputsNotAtHand,
                     absl::StrCat("layer ", layer_, " cannot run ahead"));
  }

  // Plans the memory, then takes the inputs from the cache or recomputes them.
  absl::Status ObtainInputs(const std::vector<std::string>* earlier) {
    std::optional<LayerInputs> cached;
    if (cache() != nullptr) cached = cache()->Take(plan_sha256_, {layer_, round_});
    uint64_t returned_bytes = cached ? cached->device_bytes() : 0;
    if (cache() != nullptr) returned_bytes += cache()->next_block().device_bytes();
    // One that runs ahead does so while the layer before it is packed and stored from its original.
    uint64_t beside_bytes = 0;
    if (earlier == nullptr) {
      const LayerMemory before = EstimateLayerMemory(plan_, context_.checkpoint->config(),
                                                     layer_ - 1, *env_.backend, env_.act);
      beside_bytes = 2 * before.host_bytes;
    }
    const absl::StatusOr<MemoryPlan> planned =
        PlanLayerMemory(plan_, context_.checkpoint->config(), layer_,
                        ReadAvailableMemory(*env_.backend, returned_bytes, beside_bytes), env_);
    if (!planned.ok()) {
      if (earlier != nullptr) return planned.status();
      // Alone, when its task comes, it may fit.
      if (cached) cache()->Put(plan_sha256_, {layer_, round_}, std::move(*cached));
      return CannotRunAhead();
    }
    memory_ = *planned;
    if (cached &&
        cached->x_fp.on_device() == (memory_.activations == SequenceBuffer::Placement::kDevice)) {
      inputs_ = std::move(*cached);
      return absl::OkStatus();
    }
    cached.reset();
    if (earlier == nullptr) return CannotRunAhead();
    UQ_ASSIGN_OR_RETURN(inputs_, RecomputeLayerInputs(context_, plan_sha256_, {layer_, round_},
                                                      *earlier, rope_, memory_.activations, env_));
    return absl::OkStatus();
  }

  // copied_ahead: linear weights that are on the device already.
  absl::Status LoadOriginal(std::vector<Tensor>* copied_ahead) {
    std::optional<absl::StatusOr<NextBlock::Ready>> ready;
    if (cache() != nullptr) ready = cache()->next_block().Take(plan_sha256_, layer_);
    if (ready && ready->ok()) {
      original_ = std::move((*ready)->host);
      *copied_ahead = std::move((*ready)->linear);
    } else {
      UQ_ASSIGN_OR_RETURN(original_, context_.checkpoint->LoadBlock(layer_));
    }
    const int next = layer_ + 1;
    if (next < plan_.num_layers) {
      const BlockSpec& spec = context_.checkpoint->config().blocks[next];
      ReadAhead(next, NextBlock::DeviceBytes(spec, env_.act) <= memory_.spare_bytes);
    }
    return absl::OkStatus();
  }

  // A device loads a kernel when it is first used, which takes a third of a second for a block's.
  // While the weights are still being read there is time for that.
  absl::Status WarmUp() {
    if (cache() == nullptr || !cache()->next_block().IsReading()) return absl::OkStatus();
    BlockWeights zeros;
    for (const TensorSpec& spec : block_.tensors) {
      UQ_ASSIGN_OR_RETURN(
          Tensor tensor,
          Tensor::Allocate(env_.backend, DeviceDType(spec.role, env_.act), spec.shape));
      UQ_RETURN_IF_ERROR(env_.backend->FillZero(tensor.data(), tensor.size_bytes()));
      zeros.push_back(std::move(tensor));
    }
    UQ_ASSIGN_OR_RETURN(
        Tensor sequence,
        Tensor::Allocate(env_.backend, env_.act, {1, plan_.sequence_length, block_.hidden_size}));
    UQ_RETURN_IF_ERROR(env_.backend->FillZero(sequence.data(), sequence.size_bytes()));
    return ForwardBlockInPlace(env_.backend, block_, rope_, zeros, &sequence);
  }

  // Starts reading a layer's weights, unless that was done already, and copying them. On the CPU it
  // would only take time and memory from the work itself.
  void ReadAhead(int layer, bool copy) {
    if (cache() == nullptr || env_.backend->kind() == DeviceKind::kCpu ||
        cache()->next_block().Is(plan_sha256_, layer)) {
      return;
    }
    const BlockSpec& spec = context_.checkpoint->config().blocks[layer];
    cache()->next_block().Start(
        plan_sha256_, layer,
        [store = context_.checkpoint->store(), layer]() -> absl::StatusOr<HostBlock> {
          UQ_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                              Checkpoint::Open(store, /*allow_quantized=*/false));
          return checkpoint->LoadBlock(layer);
        },
        env_.backend, spec, env_.act, copy);
  }

  ActivationCacheImpl* cache() const { return static_cast<ActivationCacheImpl*>(env_.cache); }

  absl::Status Initialize() {
    const QuantizationSpec& spec = plan_.spec;
    quant::InitOptions options;
    options.grid_steps = spec.grid_steps;
    options.alternating_rounds = spec.alternating_rounds;
    const quant::Method& method = quant::MethodOf(spec.method);
    std::shared_ptr<const SafetensorsFile> state;
    if (before_.has_value()) {
      auto opened = SafetensorsFile::Open(env_.work, ContentKey(before_->state_sha256));
      if (!opened.ok()) return NoteWorkObject(opened.status(), before_->state_sha256);
      state = *std::move(opened);
    }
    for (int l = 0; l < block_.num_linears(); ++l) {
      if (IsCancelled(env_)) return CancelledError();
      ReportProgress(env_, "initializing", l, block_.num_linears());
      const ModuleSettings settings = SettingsForModule(spec, modules_[l]);
      if (settings.full_precision) continue;
      const TensorSpec& linear = block_.linear(l);
      const int64_t group_size =
          settings.group_size == 0 ? linear.num_inputs() : settings.group_size;
      Tensor weight = std::move(weights_[block_.linears[l]]);
      UQ_ASSIGN_OR_RETURN(weights_[block_.linears[l]],
                          Tensor::Allocate(env_.backend, env_.act, linear.shape));
      UQ_ASSIGN_OR_RETURN(states_[l],
                          quant::NewQuantizerState(env_.backend, std::move(weight), settings.bits,
                                                   group_size, method.trained));
      if (state != nullptr) {
        UQ_RETURN_IF_ERROR(LoadQuantizerState(*state, modules_[l], &*states_[l]));
        continue;
      }
      method.initialize(env_.backend, options, &*states_[l]);
    }
    return env_.backend->Synchronize();
  }

  absl::Status Reconstruct() {
    const QuantizationSpec& spec = plan_.spec;
    quant::ReconstructOptions options;
    options.batch_size = spec.batch_size;
    options.num_steps = NumSteps(plan_);
    std::tie(options.first_step, options.end_step) = RoundSteps(plan_, round_);
    options.input_prob = InputProb(plan_, round_);
    options.uniform_learning_rate = spec.uniform_learning_rate;
    options.binary_learning_rate = spec.binary_learning_rate;
    options.remap_period = spec.remap_period;
    options.seed = LayerSeed(spec.seed, layer_);
    quant::BlockActivations activations;
    activations.x_fp = &inputs_.x_fp;
    // The first layer's inputs are those of the original model.
    if (NeedsQuantizedInputs(plan_.spec)) {
      activations.x_q = inputs_.x_q.empty() ? &inputs_.x_fp : &inputs_.x_q;
    }
    activations.y_fp = &y_fp_;
    std::vector<QuantizerState*> states;
    for (auto& state : states_) states.push_back(state ? &*state : nullptr);
    UQ_ASSIGN_OR_RETURN(const quant::ReconstructResult reconstructed,
                        quant::ReconstructBlock(
                            env_.backend, block_, rope_, options, activations, &weights_, states,
                            [this](const quant::ReconstructProgress& progress) {
                              ReportProgress(env_, "reconstructing", progress.step,
                                             progress.num_steps, progress.loss);
                            },
                            [this] {
                              if (cache() != nullptr) cache()->next_block().Poll();
                              return IsCancelled(env_);
                            }));
    result_.initial_loss = reconstructed.initial_loss;
    std::vector<float> curve = Condense(reconstructed.losses, kMaxCurvePoints / num_rounds_);
    if (before_.has_value()) {
      result_.initial_loss = before_->initial_loss;
      curve.insert(curve.begin(), before_->loss_curve.begin(), before_->loss_curve.end());
    }
    result_.loss_curve = std::move(curve);
    if (!inputs_.x_q.empty()) {  // then x_fp's memory is needed more than its bits
      SequenceBuffer x_fp = std::move(inputs_.x_fp);
      if (!x_fp.on_device()) inputs_.spare = std::move(x_fp);
    }
    return absl::OkStatus();
  }

  // Unifies every quantized layer; from here on only the stored form counts. The device goes on
  // with the stored weights while they are packed and written; Store waits for that.
  absl::Status StartStoring() {
    ReportProgress(env_, "storing", 0, 1);
    if (round_ + 1 < num_rounds_) {
      UQ_ASSIGN_OR_RETURN(const std::string state, SaveLayerState(modules_, states_));
      UQ_ASSIGN_OR_RETURN(result_.state_sha256, PutContent(env_.work.get(), state));
    }
    for (int l = 0; l < block_.num_linears(); ++l) {
      ModuleResult module;
      module.name = modules_[l];
      std::tie(module.num_outputs, module.num_inputs) = block_.LinearShape(l);
      result_.modules.push_back(std::move(module));
    }
    for (int i = 0; i < block_.num_linears(); ++i) {
      if (!states_[i]) continue;
      UQ_ASSIGN_OR_RETURN(UnifiedLinear unified, quant::Unify(env_.backend, *states_[i]));
      if (NeedsReconstruction(plan_.spec)) {  // else nobody asks what the block computes
        UQ_RETURN_IF_ERROR(WriteStored(unified, *states_[i], &weights_[block_.linears[i]]));
      }
      states_[i].reset();
      packing_[i] = std::async(std::launch::async, [this, i, unified = std::move(unified)] {
        packed_[i] = Pack(unified);
        ModuleResult& module = result_.modules[i];
        module.quantized = true;
        module.bits = unified.bits;
        module.group_size = unified.group_size;
        module.num_saturated = packed_[i].num_saturated;
        module.weight_error = StoredError(packed_[i], original_[block_.linears[i]]);
      });
    }
    shard_ = std::async(std::launch::async, [this] { return StoreShard(); });
    return absl::OkStatus();
  }

  // The stored weights of one layer in place of those it was trained with.
  absl::Status WriteStored(const UnifiedLinear& unified, const QuantizerState& state,
                           Tensor* weight) {
    const auto upload = [this](const std::vector<float>& values,
                               const Shape& shape) -> absl::StatusOr<Tensor> {
      std::vector<float> stored(values.size());
      std::transform(values.begin(), values.end(), stored.begin(), StoredScale);
      return Tensor::FromFloats(env_.backend, DType::kFloat32, shape, stored.data());
    };
    UQ_ASSIGN_OR_RETURN(const Tensor alpha, upload(unified.alpha, state.alpha.shape()));
    UQ_ASSIGN_OR_RETURN(const Tensor beta, upload(unified.shift, state.shift.shape()));
    quant::WriteStored(env_.backend, state, alpha, beta, weight);
    return env_.backend->Synchronize();
  }

  struct StoredShard {
    std::string sha256;
    uint64_t size_bytes = 0;
  };
  absl::StatusOr<StoredShard> StoreShard() {
    std::map<std::string, PackedLinear> packed;
    for (int i = 0; i < block_.num_linears(); ++i) {
      if (!packing_[i].valid()) continue;
      packing_[i].get();
      packed.emplace(result_.modules[i].name, std::move(packed_[i]));
    }
    UQ_ASSIGN_OR_RETURN(const std::string bytes,
                        BuildLayerShard(*context_.checkpoint, layer_, packed));
    StoredShard shard;
    shard.size_bytes = bytes.size();
    UQ_ASSIGN_OR_RETURN(shard.sha256, PutContent(env_.work.get(), bytes));
    UQ_CRASH_POINT("layer.shard_stored");
    return shard;
  }

  // The stored block's output error, and the next layer's inputs for whoever runs it here.
  absl::Status MeasureAndHandOn() {
    ReportProgress(env_, "activations", 1, 2);
    SequenceBuffer y_q = std::move(inputs_.x_q.empty() ? inputs_.x_fp : inputs_.x_q);
    UQ_RETURN_IF_ERROR(
        ForwardBlock(env_.backend, block_, rope_, weights_, y_q, &y_q, env_.cancelled));
    UQ_ASSIGN_OR_RETURN(result_.final_loss, MeanSquaredError(y_q));
    if (cache() == nullptr || layer_ + 1 == plan_.num_layers) return absl::OkStatus();
    LayerInputs next;
    next.x_fp = std::move(y_fp_);
    next.spare = std::move(inputs_.spare);
    if (NeedsQuantizedInputs(plan_.spec)) {
      next.x_q = std::move(y_q);
    } else if (!y_q.on_device()) {
      next.spare = std::move(y_q);
    }
    const LayerRound next_layer = {layer_ + 1, round_};
    cache()->Put(plan_sha256_, next_layer, std::move(next));
    if (round_ == 0) next_at_hand_ = next_layer;
    return absl::OkStatus();
  }

  absl::StatusOr<double> MeanSquaredError(const SequenceBuffer& y) {
    const int64_t per_sequence = plan_.sequence_length * block_.hidden_size;
    UQ_ASSIGN_OR_RETURN(Tensor params,
                        Tensor::Allocate(env_.backend, DType::kUint8, {sizeof(ops::StepParams)}));
    UQ_RETURN_IF_ERROR(env_.backend->FillZero(params.data(), params.size_bytes()));
    UQ_ASSIGN_OR_RETURN(Tensor row, Tensor::Allocate(env_.backend, env_.act,
                                                     {plan_.sequence_length, block_.hidden_size}));
    UQ_ASSIGN_OR_RETURN(
        Tensor target,
        Tensor::Allocate(env_.backend, env_.act, {1, plan_.sequence_length, block_.hidden_size}));
    UQ_ASSIGN_OR_RETURN(Tensor gradient, Tensor::Allocate(env_.backend, env_.act, row.shape()));
    UQ_ASSIGN_OR_RETURN(
        Tensor scratch,
        Tensor::Allocate(
            env_.backend, DType::kUint8,
            {static_cast<int64_t>(ops::MseLossScratchBytes(*env_.backend, per_sequence))}));
    UQ_ASSIGN_OR_RETURN(Tensor loss, Tensor::Allocate(env_.backend, DType::kFloat32, {1}));
    // The same sequences that measured the initial loss.
    const int64_t num_sequences =
        std::min<int64_t>(plan_.num_samples, quant::kMaxEvaluationSequences);
    double sum = 0;
    for (int64_t sequence = 0; sequence < num_sequences; ++sequence) {
      UQ_RETURN_IF_ERROR(y.Load(sequence, 0, &row));
      UQ_RETURN_IF_ERROR(y_fp_.Load(sequence, 0, &target));
      ops::MseLoss(env_.backend, static_cast<const ops::StepParams*>(params.data()), row, target,
                   /*batch=*/1, /*num_parts=*/1, &scratch, &gradient, &loss);
      float value = 0;
      UQ_RETURN_IF_ERROR(env_.backend->CopyToHost(&value, loss.data(), sizeof(value)));
      sum += value;
    }
    return sum / static_cast<double>(num_sequences);
  }

  const TaskContext context_;
  const Plan& plan_;
  const std::string plan_sha256_;
  const int layer_;
  const int round_;
  const int num_rounds_;
  const BlockSpec& block_;
  const std::vector<std::string> modules_;  // names, by linear
  const TaskEnvironment env_;
  const absl::Duration start_;
  absl::Duration elapsed_;  // the device's part

  RopeTables rope_;
  LayerInputs inputs_;
  HostBlock original_;
  // After original_, so that it is waited for first when a run ends early.
  std::future<std::string> weights_sha256_;
  BlockWeights weights_;
  MemoryPlan memory_;
  SequenceBuffer y_fp_;
  QuantizerStates states_;
  std::optional<LayerResult> before_;  // this layer's, of the round before
  std::optional<LayerRound> next_at_hand_;
  LayerResult result_;
  std::vector<PackedLinear> packed_;
  // Last, so that what runs in other threads is waited for before what it uses goes.
  std::vector<std::future<void>> packing_;
  std::future<absl::StatusOr<StoredShard>> shard_;
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
  auto run = std::make_unique<LayerRun>(std::move(context), plan_sha256, layer_round, env, start);
  UQ_RETURN_IF_ERROR(run->Optimize(earlier));
  return std::unique_ptr<UnstoredLayer>(std::move(run));
}

absl::StatusOr<LayerOutcome> RunLayer(const QuantizationSpec& spec, const std::string& plan_sha256,
                                      int layer, const std::vector<std::string>& earlier,
                                      const TaskEnvironment& env, int round) {
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<UnstoredLayer> unstored,
                      OptimizeLayer(spec, plan_sha256, {layer, round}, &earlier, env));
  return unstored->Store();
}

}  // namespace uniquanf
