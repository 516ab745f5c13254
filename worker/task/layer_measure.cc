#include "worker/task/layer_measure.h"

#include <algorithm>
#include <utility>

#include "common/base/status.h"
#include "worker/quant/reconstruct.h"

namespace uniquanf {
namespace {

absl::StatusOr<double> MeanSquaredError(const LayerTask& task, const SequenceBuffer& y,
                                        const SequenceBuffer& y_fp) {
  Backend* const backend = task.env.backend;
  const DType act = task.env.act;
  const int64_t length = task.plan().sequence_length, hidden = task.block().hidden_size;
  UQ_ASSIGN_OR_RETURN(Tensor params,
                      Tensor::Allocate(backend, DType::kUint8, {sizeof(ops::StepParams)}));
  UQ_RETURN_IF_ERROR(backend->FillZero(params.data(), params.size_bytes()));
  UQ_ASSIGN_OR_RETURN(Tensor row, Tensor::Allocate(backend, act, {length, hidden}));
  UQ_ASSIGN_OR_RETURN(Tensor target, Tensor::Allocate(backend, act, {1, length, hidden}));
  UQ_ASSIGN_OR_RETURN(Tensor gradient, Tensor::Allocate(backend, act, row.shape()));
  const auto scratch_bytes =
      static_cast<int64_t>(ops::MseLossScratchBytes(*backend, length * hidden));
  UQ_ASSIGN_OR_RETURN(Tensor scratch, Tensor::Allocate(backend, DType::kUint8, {scratch_bytes}));
  UQ_ASSIGN_OR_RETURN(Tensor loss, Tensor::Allocate(backend, DType::kFloat32, {1}));
  const int64_t num_sequences =
      std::min<int64_t>(task.plan().num_samples, quant::kMaxEvaluationSequences);
  double sum = 0;
  for (int64_t sequence = 0; sequence < num_sequences; ++sequence) {
    UQ_RETURN_IF_ERROR(y.Load(sequence, 0, &row));
    UQ_RETURN_IF_ERROR(y_fp.Load(sequence, 0, &target));
    ops::MseLoss(backend, static_cast<const ops::StepParams*>(params.data()), row, target,
                 /*batch=*/1, /*num_parts=*/1, &scratch, &gradient, &loss);
    float value = 0;
    UQ_RETURN_IF_ERROR(backend->CopyToHost(&value, loss.data(), sizeof(value)));
    sum += value;
  }
  return sum / static_cast<double>(num_sequences);
}

}  // namespace

absl::StatusOr<Measured> MeasureAndHandOn(const LayerTask& task, const BlockWeights& stored,
                                          Loaded* loaded) {
  ReportProgress(task.env, "activations", 1, 2);
  LayerInputs& inputs = loaded->inputs;
  SequenceBuffer y_q = std::move(inputs.x_q.empty() ? inputs.x_fp : inputs.x_q);
  UQ_RETURN_IF_ERROR(
      ForwardBlock(task.env.backend, task.block(), loaded->rope, stored, y_q, &y_q, task.env.stop));
  Measured measured;
  UQ_ASSIGN_OR_RETURN(measured.final_loss, MeanSquaredError(task, y_q, loaded->y_fp));
  if (task.cache() == nullptr || task.at.layer + 1 == task.plan().num_layers) return measured;
  LayerInputs next;
  next.x_fp = std::move(loaded->y_fp);
  next.spare = std::move(inputs.spare);
  if (NeedsQuantizedInputs(task.plan().spec)) {
    next.x_q = std::move(y_q);
  } else if (!y_q.on_device()) {
    next.spare = std::move(y_q);
  }
  const LayerRound next_layer = {task.at.layer + 1, task.at.round};
  task.cache()->Put(task.plan_sha256, next_layer, std::move(next));
  if (task.at.round == 0) measured.next_at_hand = next_layer;
  return measured;
}

}  // namespace uniquanf
