#include "worker/distill/window.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "worker/distill/window_schedule.h"
#include "worker/quant/reconstruct.h"

namespace uniquanf::distill {
namespace {

absl::Status NotFinite(int64_t step) {
  return MakeError(absl::StatusCode::kInternal, "LOSS_NOT_FINITE",
                   absl::StrCat("the divergence in step ", step,
                                " of the distillation is not a finite number; lower "
                                "distill_learning_rate"));
}

double Mean(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

}  // namespace

absl::StatusOr<std::unique_ptr<WindowTrainer>> WindowTrainer::Create(
    Backend* backend, const Checkpoint& checkpoint, DType act, const RopeTables& rope,
    const WindowOptions& options, const WindowData* data, std::vector<WindowLayer>* layers) {
  UQ_CHECK(!layers->empty() && layers->front().trained());
  UQ_CHECK(options.num_steps >= 0 && options.batch_size >= 1 && options.report_every >= 1);
  UQ_CHECK(static_cast<int64_t>(data->training.size()) == options.num_steps * options.batch_size);
  UQ_CHECK(data->x->shape() == data->target->shape() && !data->judges.empty());
  auto trainer =
      std::unique_ptr<WindowTrainer>(new WindowTrainer(backend, act, options, data, layers));
  UQ_RETURN_IF_ERROR(trainer->Allocate(checkpoint, rope));
  return trainer;
}

uint64_t WindowTrainer::Bytes(const Backend& backend, const ModelConfig& config, DType act,
                              int first, int batch_size, int64_t sequence_length,
                              bool keep_activations) {
  const int micro_batch = quant::MicroBatchSize(batch_size, sequence_length);
  const int64_t num_tokens = micro_batch * sequence_length;
  uint64_t sum = 0, most = 0;
  for (int layer = first; layer < config.num_layers; ++layer) {
    const uint64_t bytes =
        BlockRunnerBytes(backend, config.blocks[layer], act, micro_batch, sequence_length, true);
    sum += bytes;
    most = std::max(most, bytes);
  }
  // Inputs of all layers, the last one's output, the target and two gradients.
  const uint64_t num_hidden = config.num_layers - first + 4;
  return (keep_activations ? sum : most) +
         num_hidden * num_tokens * config.hidden_size * DTypeBytes(act) +
         HeadLoss::Bytes(config, act, num_tokens);
}

absl::Status WindowTrainer::Allocate(const Checkpoint& checkpoint, const RopeTables& rope) {
  const int64_t length = data_->x->shape()[1], hidden = data_->x->shape()[2];
  micro_batch_ = quant::MicroBatchSize(options_.batch_size, length);
  if (!options_.keep_activations) {
    uint64_t most = 0;
    for (const WindowLayer& layer : layers_) {
      most = std::max(most,
                      BlockRunnerBytes(*backend_, *layer.block, act_, micro_batch_, length, true));
    }
    UQ_ASSIGN_OR_RETURN(arena_,
                        Tensor::Allocate(backend_, DType::kUint8, {static_cast<int64_t>(most)}));
  }
  const DType gradient = num_parts() > 1 ? DType::kFloat32 : act_;
  gains_.reserve(layers_.size());  // runners keep pointers into them
  for (WindowLayer& layer : layers_) {
    UQ_ASSIGN_OR_RETURN(
        std::unique_ptr<BlockRunner> runner,
        BlockRunner::Create(backend_, *layer.block, act_, micro_batch_, length, &rope,
                            /*with_backward=*/true, arena_.empty() ? nullptr : &arena_));
    BlockGradients& gradients = gradients_.emplace_back(layer.block->num_linears());
    if (layer.trained()) {
      for (int l = 0; l < layer.block->num_linears(); ++l) {
        if (layer.states[l] == nullptr) continue;
        UQ_ASSIGN_OR_RETURN(gradients[l],
                            Tensor::Allocate(backend_, gradient, layer.block->linear(l).shape));
      }
      UQ_ASSIGN_OR_RETURN(NormGains gains,
                          NormGains::Create(backend_, *layer.block, layer.weights));
      gains_.push_back(std::move(gains));
      runner->set_norm_gradients(gains_.back().gradients());
    }
    runners_.push_back(std::move(runner));
  }
  for (size_t i = 0; i <= layers_.size(); ++i) {
    UQ_ASSIGN_OR_RETURN(hidden_.emplace_back(),
                        Tensor::Allocate(backend_, act_, {num_tokens(), hidden}));
  }
  for (Tensor* tensor : {&target_, &d_hidden_[0], &d_hidden_[1]}) {
    UQ_ASSIGN_OR_RETURN(*tensor, Tensor::Allocate(backend_, act_, {num_tokens(), hidden}));
  }
  UQ_ASSIGN_OR_RETURN(head_, HeadLoss::Create(backend_, checkpoint, act_, num_tokens()));
  return absl::OkStatus();
}

absl::Status WindowTrainer::LoadSequences(const int64_t* sequences) {
  for (int i = 0; i < micro_batch_; ++i) {
    UQ_RETURN_IF_ERROR(data_->x->Load(sequences[i], i, &hidden_[0]));
    UQ_RETURN_IF_ERROR(data_->target->Load(sequences[i], i, &target_));
  }
  return absl::OkStatus();
}

void WindowTrainer::ForwardLayers() {
  for (size_t i = 0; i < layers_.size(); ++i) {
    runners_[i]->Forward(layers_[i].weights, hidden_[i], &hidden_[i + 1]);
  }
}

// From the gradient of the last layer's output in d_hidden_[0]. With `update` a linear layer is
// updated as soon as its gradient is complete.
void WindowTrainer::BackwardLayers(bool accumulate, const quant::LatentStep* update) {
  int at = 0;
  for (auto i = static_cast<int>(layers_.size()) - 1; i >= 0; --i) {
    WindowLayer& layer = layers_[i];
    // The same values over the same memory: only what the backward pass keeps is new.
    if (!arena_.empty()) runners_[i]->Forward(layer.weights, hidden_[i], &hidden_[i + 1]);
    std::function<void(int)> on_gradient;
    if (update != nullptr && layer.trained()) {
      on_gradient = [&, i](int l) {
        quant::UpdateLatents(backend_, *update, gradients_[i][l], layer.states[l].get(),
                             &layer.weights[layer.block->linears[l]]);
      };
    }
    // The first layer's dx is not needed, but the gradients of its norms are made on the way.
    runners_[i]->Backward(layer.weights, d_hidden_[at], accumulate, &gradients_[i],
                          &d_hidden_[1 - at], on_gradient);
    at = 1 - at;
  }
}

// The tokens' divergences [num_parts · T] go to *divergences.
absl::Status WindowTrainer::RunStep(int64_t step, Tensor* divergences) {
  const double factor = RateFactor(step, options_.num_steps);
  const auto num_updates = static_cast<double>(step + 1);
  quant::LatentStep update;
  update.latent_rate = static_cast<float>(options_.latent_rate * factor);
  update.scale_rate = static_cast<float>(options_.scale_rate * factor);
  update.bias_correction1 = static_cast<float>(1 - std::pow(0.9, num_updates));
  update.bias_correction2 = static_cast<float>(1 - std::pow(quant::kLatentBeta2, num_updates));
  const auto scale = static_cast<float>(1.0 / static_cast<double>(num_tokens() * num_parts()));
  for (int part = 0; part < num_parts(); ++part) {
    UQ_RETURN_IF_ERROR(
        LoadSequences(&data_->training[step * options_.batch_size + part * micro_batch_]));
    ForwardLayers();
    Tensor kl = Tensor::View(backend_, divergences->f32() + part * num_tokens(), DType::kFloat32,
                             {num_tokens()});
    head_->Compute(hidden_.back(), target_, scale, &d_hidden_[0], &kl);
    BackwardLayers(/*accumulate=*/part > 0, part + 1 == num_parts() ? &update : nullptr);
  }
  for (size_t i = 0; i < gains_.size(); ++i) {
    UQ_RETURN_IF_ERROR(gains_[i].Update(update, &layers_[i].weights));
  }
  return absl::OkStatus();
}

absl::StatusOr<double> WindowTrainer::Judge() {
  const std::vector<int64_t>& judges = data_->judges;
  const auto count = static_cast<int64_t>(judges.size());
  UQ_ASSIGN_OR_RETURN(Tensor kl, Tensor::Allocate(backend_, DType::kFloat32, {num_tokens()}));
  double sum = 0;
  for (int64_t first = 0; first < count; first += micro_batch_) {
    // A last part that is not full is filled up with judges that are not counted again.
    std::vector<int64_t> part(micro_batch_);
    for (int i = 0; i < micro_batch_; ++i) part[i] = judges[(first + i) % count];
    UQ_RETURN_IF_ERROR(LoadSequences(part.data()));
    ForwardLayers();
    head_->Compute(hidden_.back(), target_, 1.0f, /*dx=*/nullptr, &kl);
    UQ_ASSIGN_OR_RETURN(std::vector<float> values, kl.ToFloats());
    values.resize(std::min<int64_t>(micro_batch_, count - first) * data_->x->shape()[1]);
    for (const float value : values) sum += value;
  }
  return sum / static_cast<double>(count * data_->x->shape()[1]);
}

std::vector<quant::LatentState*> WindowTrainer::States() const {
  std::vector<quant::LatentState*> states;
  for (const WindowLayer& layer : layers_) {
    for (const auto& state : layer.states) {
      if (state != nullptr) states.push_back(state.get());
    }
  }
  return states;
}

absl::Status WindowTrainer::Save(Snapshot* snapshot) {
  const std::vector<quant::LatentState*> states = States();
  for (size_t i = 0; i < states.size(); ++i) {
    const std::pair<const Tensor*, std::vector<Tensor>*> arrays[] = {
        {&states[i]->codes, &snapshot->codes},
        {&states[i]->alpha, &snapshot->alpha},
        {&states[i]->beta, &snapshot->beta}};
    for (const auto& [from, all] : arrays) {
      if (all->size() == i) {
        UQ_ASSIGN_OR_RETURN(all->emplace_back(),
                            Tensor::Allocate(backend_, from->dtype(), from->shape()));
      }
      UQ_RETURN_IF_ERROR(
          backend_->CopyOnDevice((*all)[i].data(), from->data(), from->size_bytes()));
    }
  }
  snapshot->gains.clear();
  for (const NormGains& gains : gains_) snapshot->gains.push_back(gains.Save());
  return absl::OkStatus();
}

absl::Status WindowTrainer::Restore(const Snapshot& snapshot) {
  const std::vector<quant::LatentState*> states = States();
  for (size_t i = 0; i < states.size(); ++i) {
    const std::pair<Tensor*, const Tensor*> arrays[] = {{&states[i]->codes, &snapshot.codes[i]},
                                                        {&states[i]->alpha, &snapshot.alpha[i]},
                                                        {&states[i]->beta, &snapshot.beta[i]}};
    for (const auto& [to, from] : arrays) {
      UQ_RETURN_IF_ERROR(backend_->CopyOnDevice(to->data(), from->data(), from->size_bytes()));
    }
  }
  for (size_t i = 0; i < gains_.size(); ++i) {
    UQ_RETURN_IF_ERROR(gains_[i].Restore(snapshot.gains[i], &layers_[i].weights));
  }
  return backend_->Synchronize();
}

absl::StatusOr<WindowOutcome> WindowTrainer::Train(
    const std::function<void(const WindowProgress&)>& progress,
    const std::function<bool()>& cancelled) {
  WindowOutcome outcome;
  Snapshot best;
  UQ_RETURN_IF_ERROR(Save(&best));
  UQ_ASSIGN_OR_RETURN(outcome.initial_divergence, Judge());
  if (!std::isfinite(outcome.initial_divergence)) return NotFinite(0);
  outcome.best_divergence = outcome.initial_divergence;
  const std::vector<int64_t> judged = JudgedSteps(options_.num_steps);
  UQ_ASSIGN_OR_RETURN(Tensor divergences,
                      Tensor::Allocate(backend_, DType::kFloat32, {num_parts() * num_tokens()}));
  double since = 0;
  int64_t num_since = 0;
  for (int64_t step = 0; step < options_.num_steps; ++step) {
    if (cancelled && cancelled()) {
      UQ_RETURN_IF_ERROR(backend_->Synchronize());
      return absl::CancelledError(
          absl::StrCat("cancelled at step ", step, " of ", options_.num_steps));
    }
    UQ_RETURN_IF_ERROR(RunStep(step, &divergences));
    UQ_ASSIGN_OR_RETURN(const std::vector<float> values, divergences.ToFloats());
    outcome.losses.push_back(static_cast<float>(Mean(values)));
    if (!std::isfinite(outcome.losses.back())) return NotFinite(step);
    since += outcome.losses.back();
    ++num_since;
    const int64_t num_done = step + 1;
    if (std::binary_search(judged.begin(), judged.end(), num_done)) {
      UQ_ASSIGN_OR_RETURN(const double divergence, Judge());
      if (divergence < outcome.best_divergence) {
        outcome.best_divergence = divergence;
        outcome.best_step = num_done;
        UQ_RETURN_IF_ERROR(Save(&best));
      }
    }
    if (num_since < options_.report_every && num_done < options_.num_steps) continue;
    if (progress) {
      progress({num_done, options_.num_steps, since / static_cast<double>(num_since)});
    }
    since = 0;
    num_since = 0;
  }
  UQ_RETURN_IF_ERROR(Restore(best));
  return outcome;
}

}  // namespace uniquanf::distill
