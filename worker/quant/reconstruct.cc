#include "worker/quant/reconstruct.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "worker/quant/gradient_memory.h"
#include "worker/quant/kept_start.h"
#include "worker/quant/staged_batch.h"
#include "worker/quant/step_schedule.h"

namespace uniquanf::quant {
namespace {

// The steps of a schedule, cut into micro-batches with sequences and draws of their own.
class PartSchedule {
 public:
  PartSchedule(StepSchedule steps, int micro_batch, int num_parts)
      : steps_(std::move(steps)), micro_batch_(micro_batch), num_parts_(num_parts) {}
  ops::StepParams Next() {
    if (part_ == 0) step_ = steps_.Next();
    ops::StepParams params = step_;
    std::copy_n(step_.sequence_index + part_ * micro_batch_, micro_batch_, params.sequence_index);
    params.draw = step_.draw * num_parts_ + part_;
    part_ = (part_ + 1) % num_parts_;
    return params;
  }

 private:
  StepSchedule steps_;
  const int micro_batch_, num_parts_;
  ops::StepParams step_ = {};
  int part_ = 0;
};

class Reconstruction {
 public:
  Reconstruction(Backend* backend, const ReconstructOptions& options,
                 const BlockActivations& activations, const BlockSpec& block, BlockWeights* weights,
                 std::vector<QuantizerState*> states)
      : backend_(backend),
        options_(options),
        block_(block),
        activations_(activations),
        weights_(weights),
        states_(std::move(states)),
        num_sequences_(activations.x_fp.shape()[0]),
        micro_batch_(options.micro_batch_size > 0
                         ? options.micro_batch_size
                         : MicroBatchSize(options.batch_size, activations.x_fp.shape()[1])),
        num_parts_(options.batch_size / micro_batch_),
        num_steps_((options.end_step < 0 ? options.num_steps : options.end_step) -
                   options.first_step) {}

  absl::Status Allocate(const RopeTables& rope);
  absl::StatusOr<ReconstructResult> Run(
      const std::function<void(const ReconstructProgress&)>& progress,
      const std::function<bool()>& cancelled);

 private:
  const ops::StepParams* params() const {
    return static_cast<const ops::StepParams*>(params_.data());
  }
  // Plain FlexRound when no layer trains α.
  bool MapsDirectly() const;
  // Forward and backward of part `part` of a step; the last one updates the quantizers.
  absl::Status RunPart(int part, const ops::StepParams& params);
  void IssuePart(bool is_first, bool is_last);
  void Update(int l);
  // Backend::RunCaptured, for blocks that can be recorded.
  absl::Status RunRecorded(std::unique_ptr<CapturedSequence>* sequence,
                           const std::function<void()>& issue);
  absl::StatusOr<double> EvaluateLoss();
  // Copies the losses of steps [begin, end) to the result: means over the step's parts.
  absl::Status FetchLosses(int64_t begin, int64_t end, std::vector<float>* losses);

  Backend* const backend_;
  const ReconstructOptions& options_;
  const BlockSpec& block_;
  const BlockActivations& activations_;
  BlockWeights* const weights_;
  const std::vector<QuantizerState*> states_;
  const int64_t num_sequences_;
  const int micro_batch_;    // sequences
  const int num_parts_;      // micro-batches a step
  const int64_t num_steps_;  // to run
  std::unique_ptr<BlockRunner> runner_;
  Tensor shared_gradient_;            // of layers whose gradient is used as soon as it is made
  BlockGradients gradients_;          // f32 where they are sums of several parts
  BlockGradients rounded_gradients_;  // act, made from those of another type
  Tensor x_, y_, dy_, loss_, loss_scratch_, params_;
  StagedBatch batch_;
  Tensor losses_;  // one a part of a step, on the device, so that a step does not wait for it
  std::unique_ptr<CapturedSequence> captured_[2][2];  // of IssuePart, by its arguments
};

absl::Status Reconstruction::Allocate(const RopeTables& rope) {
  const int64_t seq_len = activations_.x_fp.shape()[1], hidden = activations_.x_fp.shape()[2];
  const int64_t tokens = micro_batch_ * seq_len;
  const DType act = activations_.x_fp.dtype();
  UQ_ASSIGN_OR_RETURN(runner_, BlockRunner::Create(backend_, block_, act, micro_batch_, seq_len,
                                                   &rope, /*with_backward=*/true));
  gradients_.resize(block_.num_linears());
  rounded_gradients_.resize(block_.num_linears());
  if (num_parts_ == 1) {
    UQ_RETURN_IF_ERROR(
        AllocateGradients(backend_, block_, states_, act, &shared_gradient_, &gradients_));
  } else {
    for (int l = 0; l < block_.num_linears(); ++l) {
      if (states_[l] == nullptr) continue;
      UQ_ASSIGN_OR_RETURN(gradients_[l],
                          Tensor::Allocate(backend_, DType::kFloat32, block_.linear(l).shape));
    }
    if (act != DType::kFloat32) {
      UQ_RETURN_IF_ERROR(AllocateGradients(backend_, block_, states_, act, &shared_gradient_,
                                           &rounded_gradients_));
    }
  }
  for (Tensor* tensor : {&x_, &y_, &dy_}) {
    UQ_ASSIGN_OR_RETURN(*tensor, Tensor::Allocate(backend_, act, {tokens, hidden}));
  }
  UQ_ASSIGN_OR_RETURN(batch_, StagedBatch::Create(backend_, activations_, micro_batch_));
  UQ_ASSIGN_OR_RETURN(loss_, Tensor::Allocate(backend_, DType::kFloat32, {1}));
  UQ_ASSIGN_OR_RETURN(losses_, Tensor::Allocate(backend_, DType::kFloat32,
                                                {std::max<int64_t>(1, num_steps_ * num_parts_)}));
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

absl::Status Reconstruction::RunPart(int part, const ops::StepParams& params) {
  UQ_RETURN_IF_ERROR(backend_->CopyFromHost(params_.data(), &params, sizeof(params)));
  const bool is_first = part == 0, is_last = part + 1 == num_parts_;
  return RunRecorded(&captured_[is_first][is_last], [=, this] { IssuePart(is_first, is_last); });
}

absl::Status Reconstruction::RunRecorded(std::unique_ptr<CapturedSequence>* sequence,
                                         const std::function<void()>& issue) {
  if (block_.capturable()) return backend_->RunCaptured(sequence, issue);
  issue();
  return absl::OkStatus();
}

void Reconstruction::IssuePart(bool is_first, bool is_last) {
  ops::MixInputs(backend_, params(), options_.seed, options_.input_prob,
                 options_.input_prob > 0 ? batch_.x_q() : nullptr, *batch_.x_fp(), micro_batch_,
                 &x_);
  runner_->Forward(*weights_, x_, &y_);
  ops::MseLoss(backend_, params(), y_, *batch_.y_fp(), micro_batch_, num_parts_, &loss_scratch_,
               &dy_, &loss_);
  // A layer's ŵ is replaced as soon as its gradient exists: Backward promises not to read the
  // layer's weight after it has called back.
  std::function<void(int)> update;
  if (is_last) update = [this](int l) { Update(l); };
  runner_->Backward(*weights_, dy_, /*accumulate=*/!is_first, &gradients_, /*dx=*/nullptr, update);
}

void Reconstruction::Update(int l) {
  const Tensor* gradient = &gradients_[l];
  if (!rounded_gradients_[l].empty()) {
    ops::Cast(backend_, *gradient, &rounded_gradients_[l]);
    gradient = &rounded_gradients_[l];
  }
  UpdateAndForward(backend_, params(), *gradient, states_[l], &(*weights_)[block_.linears[l]]);
}

absl::StatusOr<double> Reconstruction::EvaluateLoss() {
  const int batch = micro_batch_;
  const int64_t num_evaluated = std::min(num_sequences_, kMaxEvaluationSequences);
  const int64_t num_batches = (num_evaluated + batch - 1) / batch;
  Tensor losses;
  UQ_ASSIGN_OR_RETURN(losses, Tensor::Allocate(backend_, DType::kFloat32, {num_batches}));
  std::unique_ptr<CapturedSequence> sequence;
  for (int64_t b = 0; b < num_batches; ++b) {
    ops::StepParams params = {};
    for (int i = 0; i < batch; ++i) params.sequence_index[i] = (b * batch + i) % num_evaluated;
    UQ_RETURN_IF_ERROR(batch_.Take(params.sequence_index));
    UQ_RETURN_IF_ERROR(backend_->CopyFromHost(params_.data(), &params, sizeof(params)));
    UQ_RETURN_IF_ERROR(RunRecorded(&sequence, [this, batch] {
      ops::MixInputs(backend_, this->params(), /*seed=*/0, /*prob=*/1.0, batch_.x_q(),
                     *batch_.x_fp(), batch, &x_);
      runner_->Forward(*weights_, x_, &y_);
      ops::MseLoss(backend_, this->params(), y_, *batch_.y_fp(), batch, /*num_parts=*/1,
                   &loss_scratch_, &dy_, &loss_);
    }));
    UQ_RETURN_IF_ERROR(backend_->CopyOnDevice(losses.f32() + b, loss_.data(), sizeof(float)));
  }
  UQ_ASSIGN_OR_RETURN(std::vector<float> values, losses.ToFloats());
  double sum = 0;
  for (float value : values) sum += value;
  return sum / static_cast<double>(num_batches);
}

absl::Status Reconstruction::FetchLosses(int64_t begin, int64_t end, std::vector<float>* losses) {
  std::vector<float> parts((end - begin) * num_parts_);
  UQ_RETURN_IF_ERROR(backend_->CopyToHost(parts.data(), losses_.f32() + begin * num_parts_,
                                          parts.size() * sizeof(float)));
  for (size_t i = 0; i < parts.size(); i += num_parts_) {
    double sum = 0;
    for (int part = 0; part < num_parts_; ++part) sum += parts[i + part];
    losses->push_back(static_cast<float>(sum / num_parts_));
  }
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
  KeptStart start;
  if (options_.keep_better_start) {
    UQ_ASSIGN_OR_RETURN(start, KeptStart::Save(backend_, states_));
  }
  for (int l = 0; l < block_.num_linears(); ++l) {
    if (states_[l] == nullptr) continue;
    // The part before ended with the codes it had trained with; this is the pass that it left out.
    const Mapping mapping = MapsDirectly()
                                ? Mapping::kDirect
                                : MappingForPass(options_.first_step + 1, options_.remap_period);
    Forward(backend_, mapping, states_[l], &(*weights_)[block_.linears[l]]);
  }
  UQ_ASSIGN_OR_RETURN(result.initial_loss, EvaluateLoss());

  PartSchedule parts(StepSchedule(options_, num_sequences_, MapsDirectly()), micro_batch_,
                     num_parts_);
  ops::StepParams next = {};
  if (num_steps_ > 0) next = parts.Next();
  int64_t num_fetched = 0;
  for (int64_t step = 0; step < num_steps_; ++step) {
    if (cancelled && cancelled()) {
      UQ_RETURN_IF_ERROR(backend_->Synchronize());
      return absl::CancelledError(absl::StrCat("cancelled at step ", step, " of ", num_steps_));
    }
    for (int part = 0; part < num_parts_; ++part) {
      ops::StepParams params = next;
      UQ_RETURN_IF_ERROR(batch_.Take(params.sequence_index));
      if (step + 1 < num_steps_ || part + 1 < num_parts_) {
        next = parts.Next();
        UQ_RETURN_IF_ERROR(batch_.Prefetch(next.sequence_index));
      }
      UQ_RETURN_IF_ERROR(RunPart(part, params));
      UQ_RETURN_IF_ERROR(backend_->CopyOnDevice(losses_.f32() + step * num_parts_ + part,
                                                loss_.data(), sizeof(float)));
    }
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
  if (options_.keep_better_start && !(result.final_loss < result.initial_loss)) {
    UQ_RETURN_IF_ERROR(start.Return(block_, states_, weights_));
    result.final_loss = result.initial_loss;
    result.kept_start = true;
  }
  return result;
}

}  // namespace

int MicroBatchSize(int batch_size, int64_t sequence_length) {
  int size = 1;
  for (int divisor = 2; divisor <= batch_size; ++divisor) {
    if (batch_size % divisor == 0 && divisor * sequence_length <= kMicroBatchTokens) size = divisor;
  }
  return size;
}

absl::StatusOr<ReconstructResult> ReconstructBlock(
    Backend* backend, const BlockSpec& block, const RopeTables& rope,
    const ReconstructOptions& options, const BlockActivations& activations, BlockWeights* weights,
    std::vector<QuantizerState*> states,
    const std::function<void(const ReconstructProgress&)>& progress,
    const std::function<bool()>& cancelled) {
  UQ_CHECK(options.first_step >= 0 && options.end_step <= options.num_steps &&
           options.first_step <= (options.end_step < 0 ? options.num_steps : options.end_step));
  UQ_CHECK(
      !options.keep_better_start ||
      (options.first_step == 0 && (options.end_step < 0 || options.end_step == options.num_steps)));
  UQ_CHECK(options.num_steps >= 0 && options.report_every >= 1 && options.remap_period >= 1);
  UQ_CHECK(options.batch_size >= 1 && options.batch_size <= ops::kMaxBatchSize);
  UQ_CHECK(options.micro_batch_size == 0 || options.batch_size % options.micro_batch_size == 0);
  const SequenceSource &x_fp = activations.x_fp, &x_q = activations.x_q, &y_fp = activations.y_fp;
  UQ_CHECK(!x_fp.empty() && !y_fp.empty());
  UQ_CHECK(x_fp.shape().size() == 3 && x_fp.shape()[0] >= 1);
  UQ_CHECK(y_fp.shape() == x_fp.shape());
  UQ_CHECK((y_fp.tensor() == nullptr) == (x_fp.tensor() == nullptr));
  UQ_CHECK(options.input_prob == 0 || !x_q.empty());
  UQ_CHECK(x_q.empty() || (x_q.shape() == x_fp.shape() &&
                           (x_q.tensor() == nullptr) == (x_fp.tensor() == nullptr)));
  UQ_CHECK(static_cast<int>(states.size()) == block.num_linears());
  Reconstruction reconstruction(backend, options, activations, block, weights, std::move(states));
  UQ_RETURN_IF_ERROR(reconstruction.Allocate(rope));
  return reconstruction.Run(progress, cancelled);
}

}  // namespace uniquanf::quant
