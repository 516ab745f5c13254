#include "worker/quant/reconstruct.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "worker/quant/step_schedule.h"

namespace uniquanf::quant {
namespace {

class Reconstruction {
 public:
  Reconstruction(Backend* backend, const ReconstructOptions& options,
                 const BlockActivations& activations, BlockWeights* weights,
                 std::array<QuantizerState*, kNumLinears> states)
      : backend_(backend),
        options_(options),
        activations_(activations),
        weights_(weights),
        states_(states),
        num_sequences_(activations.x_fp.shape()[0]),
        num_steps_((options.end_step < 0 ? options.num_steps : options.end_step) -
                   options.first_step) {}

  absl::Status Allocate(const BlockConfig& config, const RopeTables& rope);
  absl::StatusOr<ReconstructResult> Run(
      const std::function<void(const ReconstructProgress&)>& progress,
      const std::function<bool()>& cancelled);

 private:
  const ops::StepParams* params() const {
    return static_cast<const ops::StepParams*>(params_.data());
  }
  // Plain FlexRound when no layer trains α.
  bool MapsDirectly() const;
  // Puts the step's sequences in the staging tensors where the activations lie on the host, and the
  // step's parameters on the device.
  absl::Status PrepareStep(ops::StepParams params);
  void IssueStep();
  absl::StatusOr<double> EvaluateLoss();
  // Copies the losses of steps [begin, end) to the result.
  absl::Status FetchLosses(int64_t begin, int64_t end, std::vector<float>* losses);

  Backend* const backend_;
  const ReconstructOptions& options_;
  const BlockActivations& activations_;
  BlockWeights* const weights_;
  const std::array<QuantizerState*, kNumLinears> states_;
  const int64_t num_sequences_;
  const int64_t num_steps_;  // to run
  std::unique_ptr<BlockRunner> runner_;
  BlockGradients gradients_;
  Tensor x_, y_, dy_, loss_, loss_scratch_, params_;
  // What the ops gather from: the activations, or one step's worth of them, staged.
  const Tensor *x_fp_ = nullptr, *x_q_ = nullptr, *y_fp_ = nullptr;
  Tensor staged_x_fp_, staged_x_q_, staged_y_fp_;
  Tensor losses_;  // one a step that is run, on the device, so that a step does not wait for it
};

absl::Status Reconstruction::Allocate(const BlockConfig& config, const RopeTables& rope) {
  const int64_t seq_len = activations_.x_fp.shape()[1], hidden = activations_.x_fp.shape()[2];
  const int64_t tokens = options_.batch_size * seq_len;
  const DType act = activations_.x_fp.dtype();
  UQ_ASSIGN_OR_RETURN(runner_, BlockRunner::Create(backend_, config, act, options_.batch_size,
                                                   seq_len, &rope, /*with_backward=*/true));
  for (Linear linear : kAllLinears) {
    // A layer left in full precision needs no gradient: an empty tensor says so.
    if (states_[static_cast<int>(linear)] == nullptr) continue;
    const auto [n, k] = config.LinearShape(linear);
    UQ_ASSIGN_OR_RETURN(gradients_[static_cast<int>(linear)],
                        Tensor::Allocate(backend_, act, {n, k}));
  }
  for (Tensor* tensor : {&x_, &y_, &dy_}) {
    UQ_ASSIGN_OR_RETURN(*tensor, Tensor::Allocate(backend_, act, {tokens, hidden}));
  }
  const auto attach = [&](const SequenceSource& source, Tensor* staged,
                          const Tensor** tensor) -> absl::Status {
    *tensor = source.tensor();
    if (source.empty() || *tensor != nullptr) return absl::OkStatus();
    UQ_ASSIGN_OR_RETURN(*staged,
                        Tensor::Allocate(backend_, act, {options_.batch_size, seq_len, hidden}));
    *tensor = staged;
    return absl::OkStatus();
  };
  UQ_RETURN_IF_ERROR(attach(activations_.x_fp, &staged_x_fp_, &x_fp_));
  UQ_RETURN_IF_ERROR(attach(activations_.x_q, &staged_x_q_, &x_q_));
  UQ_RETURN_IF_ERROR(attach(activations_.y_fp, &staged_y_fp_, &y_fp_));
  UQ_ASSIGN_OR_RETURN(loss_, Tensor::Allocate(backend_, DType::kFloat32, {1}));
  UQ_ASSIGN_OR_RETURN(
      losses_, Tensor::Allocate(backend_, DType::kFloat32, {std::max<int64_t>(1, num_steps_)}));
  const auto scratch_bytes =
      static_cast<int64_t>(ops::MseLossScratchBytes(*backend_, tokens * hidden));
  UQ_ASSIGN_OR_RETURN(loss_scratch_, Tensor::Allocate(backend_, DType::kUint8, {scratch_bytes}));
  UQ_ASSIGN_OR_RETURN(params_, Tensor::Allocate(backend_, DType::kUint8,
                                                {static_cast<int64_t>(sizeof(ops::StepParams))}));
  return absl::OkStatus();
}

bool Reconstruction::MapsDirectly() const {
  return std::none_of(states_.begin(), states_.end(), [](const QuantizerState* state) {
    return state != nullptr && state->trained.binary;
  });
}

absl::Status Reconstruction::PrepareStep(ops::StepParams params) {
  if (!staged_x_fp_.empty()) {
    for (int b = 0; b < options_.batch_size; ++b) {
      const int64_t s = params.sequence_index[b];
      UQ_RETURN_IF_ERROR(activations_.x_fp.buffer()->Load(s, b, &staged_x_fp_));
      UQ_RETURN_IF_ERROR(activations_.y_fp.buffer()->Load(s, b, &staged_y_fp_));
      if (x_q_ != nullptr) {
        UQ_RETURN_IF_ERROR(activations_.x_q.buffer()->Load(s, b, &staged_x_q_));
      }
      params.sequence_index[b] = b;
    }
  }
  return backend_->CopyFromHost(params_.data(), &params, sizeof(params));
}

void Reconstruction::IssueStep() {
  ops::MixInputs(backend_, params(), options_.seed, options_.input_prob,
                 options_.input_prob > 0 ? x_q_ : nullptr, *x_fp_, options_.batch_size, &x_);
  runner_->Forward(*weights_, x_, &y_);
  ops::MseLoss(backend_, params(), y_, *y_fp_, options_.batch_size, &loss_scratch_, &dy_, &loss_);
  // A layer's ŵ is replaced as soon as its gradient exists: Backward promises not to read the
  // layer's weight after it has called back.
  runner_->Backward(*weights_, dy_, &gradients_, /*dx=*/nullptr, [this](Linear linear) {
    const int l = static_cast<int>(linear);
    UpdateAndForward(backend_, params(), gradients_[l], states_[l], &weights_->linear[l]);
  });
}

absl::StatusOr<double> Reconstruction::EvaluateLoss() {
  const int batch = options_.batch_size;
  const int64_t num_evaluated = std::min(num_sequences_, kMaxEvaluationSequences);
  const int64_t num_batches = (num_evaluated + batch - 1) / batch;
  Tensor losses;
  UQ_ASSIGN_OR_RETURN(losses, Tensor::Allocate(backend_, DType::kFloat32, {num_batches}));
  std::unique_ptr<CapturedSequence> sequence;
  for (int64_t b = 0; b < num_batches; ++b) {
    ops::StepParams params = {};
    for (int i = 0; i < batch; ++i) params.sequence_index[i] = (b * batch + i) % num_evaluated;
    UQ_RETURN_IF_ERROR(PrepareStep(params));
    UQ_RETURN_IF_ERROR(backend_->RunCaptured(&sequence, [this, batch] {
      ops::MixInputs(backend_, this->params(), /*seed=*/0, /*prob=*/1.0, x_q_, *x_fp_, batch, &x_);
      runner_->Forward(*weights_, x_, &y_);
      ops::MseLoss(backend_, this->params(), y_, *y_fp_, batch, &loss_scratch_, &dy_, &loss_);
    }));
    UQ_RETURN_IF_ERROR(backend_->CopyOnDevice(losses.f32() + b, loss_.data(), sizeof(float)));
  }
  UQ_ASSIGN_OR_RETURN(std::vector<float> values, losses.ToFloats());
  double sum = 0;
  for (float value : values) sum += value;
  return sum / static_cast<double>(num_batches);
}

absl::Status Reconstruction::FetchLosses(int64_t begin, int64_t end, std::vector<float>* losses) {
  losses->resize(end);
  UQ_RETURN_IF_ERROR(backend_->CopyToHost(losses->data() + begin, losses_.f32() + begin,
                                          (end - begin) * sizeof(float)));
  for (int64_t step = begin; step < end; ++step) {
    if (std::isfinite((*losses)[step])) continue;
    return MakeError(
        absl::StatusCode::kInternal, "LOSS_NOT_FINITE",
        absl::StrCat("the reconstruction loss is ", (*losses)[step], " at step ", step, " of ",
                     num_steps_,
                     "; lower the learning rates, or quantize this layer with more bits"));
  }
  return absl::OkStatus();
}

absl::StatusOr<ReconstructResult> Reconstruction::Run(
    const std::function<void(const ReconstructProgress&)>& progress,
    const std::function<bool()>& cancelled) {
  ReconstructResult result;
  for (int l = 0; l < kNumLinears; ++l) {
    if (states_[l] == nullptr) continue;
    // The part before ended with the codes it had trained with; this is the pass that it left out.
    const Mapping mapping = MapsDirectly()
                                ? Mapping::kDirect
                                : MappingForPass(options_.first_step + 1, options_.remap_period);
    Forward(backend_, mapping, states_[l], &weights_->linear[l]);
  }
  UQ_ASSIGN_OR_RETURN(result.initial_loss, EvaluateLoss());

  StepSchedule schedule(options_, num_sequences_, MapsDirectly());
  std::unique_ptr<CapturedSequence> sequence;
  int64_t num_fetched = 0;
  for (int64_t step = 0; step < num_steps_; ++step) {
    if (cancelled && cancelled()) {
      UQ_RETURN_IF_ERROR(backend_->Synchronize());
      return absl::CancelledError(absl::StrCat("cancelled at step ", step, " of ", num_steps_));
    }
    const ops::StepParams params = schedule.Next();
    UQ_RETURN_IF_ERROR(PrepareStep(params));
    UQ_RETURN_IF_ERROR(backend_->RunCaptured(&sequence, [this] { IssueStep(); }));
    UQ_RETURN_IF_ERROR(backend_->CopyOnDevice(losses_.f32() + step, loss_.data(), sizeof(float)));
    const int64_t num_done = step + 1;
    if (num_done - num_fetched < options_.report_every && num_done < num_steps_) continue;
    UQ_RETURN_IF_ERROR(FetchLosses(num_fetched, num_done, &result.losses));
    double sum = 0;
    for (int64_t i = num_fetched; i < num_done; ++i) sum += result.losses[i];
    const auto mean = static_cast<float>(sum / static_cast<double>(num_done - num_fetched));
    num_fetched = num_done;
    if (progress) progress({num_done, num_steps_, mean});
  }
  UQ_ASSIGN_OR_RETURN(result.final_loss, EvaluateLoss());
  if (!std::isfinite(result.initial_loss) || !std::isfinite(result.final_loss)) {
    return MakeError(
        absl::StatusCode::kInternal, "LOSS_NOT_FINITE",
        absl::StrCat("the block's loss is ", result.initial_loss, " before and ", result.final_loss,
                     " after reconstruction; check the calibration activations"));
  }
  return result;
}

}  // namespace

absl::StatusOr<ReconstructResult> ReconstructBlock(
    Backend* backend, const BlockConfig& config, const RopeTables& rope,
    const ReconstructOptions& options, const BlockActivations& activations, BlockWeights* weights,
    std::array<QuantizerState*, kNumLinears> states,
    const std::function<void(const ReconstructProgress&)>& progress,
    const std::function<bool()>& cancelled) {
  UQ_CHECK(options.first_step >= 0 && options.end_step <= options.num_steps &&
           options.first_step <= (options.end_step < 0 ? options.num_steps : options.end_step));
  UQ_CHECK(options.num_steps >= 0 && options.report_every >= 1 && options.remap_period >= 1);
  UQ_CHECK(options.batch_size >= 1 && options.batch_size <= ops::kMaxBatchSize);
  const SequenceSource &x_fp = activations.x_fp, &x_q = activations.x_q, &y_fp = activations.y_fp;
  UQ_CHECK(!x_fp.empty() && !y_fp.empty());
  UQ_CHECK(x_fp.shape().size() == 3 && x_fp.shape()[0] >= 1);
  UQ_CHECK(y_fp.shape() == x_fp.shape());
  UQ_CHECK((y_fp.tensor() == nullptr) == (x_fp.tensor() == nullptr));
  UQ_CHECK(options.input_prob == 0 || !x_q.empty());
  UQ_CHECK(x_q.empty() || (x_q.shape() == x_fp.shape() &&
                           (x_q.tensor() == nullptr) == (x_fp.tensor() == nullptr)));
  Reconstruction reconstruction(backend, options, activations, weights, states);
  UQ_RETURN_IF_ERROR(reconstruction.Allocate(config, rope));
  return reconstruction.Run(progress, cancelled);
}

}  // namespace uniquanf::quant
