#include "worker/task/layer_load.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status.h"
#include "worker/task/layer_inputs.h"
#include "worker/task/layer_task.h"

namespace uniquanf {
namespace {

// A matrix with at least this part of zeros is not one that was trained.
constexpr double kDoubtfulZeros = 0.9;

// Starts reading a layer's weights, unless that was done already, and copying them. On the CPU it
// would only take time and memory from the work itself.
void ReadAhead(const LayerTask& task, int layer, bool copy) {
  if (task.cache() == nullptr || task.env.backend->kind() == DeviceKind::kCpu ||
      task.cache()->next_block().Is(task.plan_sha256, layer)) {
    return;
  }
  task.cache()->next_block().Start(
      task.plan_sha256, layer,
      [store = task.context.checkpoint->store(), layer]() -> absl::StatusOr<HostBlock> {
        UQ_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                            Checkpoint::Open(store, /*allow_quantized=*/false));
        return checkpoint->LoadBlock(layer);
      },
      task.env.backend, task.config().blocks[layer], task.env.act, copy);
}

absl::Status CannotRunAhead(const LayerTask& task) {
  return MakeError(absl::StatusCode::kFailedPrecondition, kInputsNotAtHand,
                   absl::StrCat("layer ", task.at.layer, " cannot run ahead"));
}

// Plans the memory, then takes the inputs from the cache or recomputes them.
absl::Status ObtainInputs(const LayerTask& task, const std::vector<std::string>* earlier,
                          Loaded* loaded) {
  const TaskEnvironment& env = task.env;
  std::optional<LayerInputs> cached;
  if (task.cache() != nullptr) cached = task.cache()->Take(task.plan_sha256, task.at);
  uint64_t returned_bytes = cached ? cached->device_bytes() : 0;
  if (task.cache() != nullptr) returned_bytes += task.cache()->next_block().device_bytes();
  // One that runs ahead does so while the layer before it is packed and stored from its original.
  uint64_t beside_bytes = 0;
  if (earlier == nullptr) {
    const LayerMemory before =
        EstimateLayerMemory(task.plan(), task.config(), task.at.layer - 1, *env.backend, env.act);
    beside_bytes = 2 * before.host_bytes;
  }
  const absl::StatusOr<MemoryPlan> planned =
      PlanLayerMemory(task.plan(), task.config(), task.at.layer,
                      ReadAvailableMemory(*env.backend, returned_bytes, beside_bytes), env);
  if (!planned.ok()) {
    if (earlier != nullptr) return planned.status();
    // Alone, when its task comes, it may fit.
    if (cached) task.cache()->Put(task.plan_sha256, task.at, std::move(*cached));
    return CannotRunAhead(task);
  }
  loaded->memory = *planned;
  const bool on_device = loaded->memory.activations == SequenceBuffer::Placement::kDevice;
  if (cached && cached->x_fp.on_device() == on_device) {
    loaded->inputs = std::move(*cached);
    return absl::OkStatus();
  }
  cached.reset();
  if (earlier == nullptr) return CannotRunAhead(task);
  UQ_ASSIGN_OR_RETURN(loaded->inputs,
                      RecomputeLayerInputs(task.context, task.plan_sha256, task.at, *earlier,
                                           loaded->rope, loaded->memory.activations, env));
  return absl::OkStatus();
}

// A device loads a kernel when it is first used, which takes a third of a second for a block's.
// While the weights are still being read there is time for that.
absl::Status WarmUp(const LayerTask& task, const RopeTables& rope) {
  if (task.cache() == nullptr || !task.cache()->next_block().IsReading()) return absl::OkStatus();
  Backend* const backend = task.env.backend;
  BlockWeights zeros;
  for (const TensorSpec& spec : task.block().tensors) {
    UQ_ASSIGN_OR_RETURN(
        Tensor tensor, Tensor::Allocate(backend, DeviceDType(spec.role, task.env.act), spec.shape));
    UQ_RETURN_IF_ERROR(backend->FillZero(tensor.data(), tensor.size_bytes()));
    zeros.push_back(std::move(tensor));
  }
  UQ_ASSIGN_OR_RETURN(Tensor sequence,
                      Tensor::Allocate(backend, task.env.act,
                                       {1, task.plan().sequence_length, task.block().hidden_size}));
  UQ_RETURN_IF_ERROR(backend->FillZero(sequence.data(), sequence.size_bytes()));
  return ForwardBlockInPlace(backend, task.block(), rope, zeros, &sequence);
}

}  // namespace

LayerTask MakeLayerTask(TaskContext context, std::string plan_sha256, LayerRound at,
                        const TaskEnvironment& env) {
  LayerTask task;
  task.context = std::move(context);
  task.plan_sha256 = std::move(plan_sha256);
  task.at = at;
  task.env = env;
  task.num_rounds = NumRounds(task.plan());
  task.reconstructs = NeedsReconstruction(task.plan().spec);
  task.modules = task.config().ModuleNames(at.layer);
  return task;
}

absl::Status LoadInputs(const LayerTask& task, const std::vector<std::string>* earlier,
                        Loaded* loaded) {
  const auto [layer, round] = task.at;
  ReadAhead(task, layer, /*copy=*/true);  // the plan has room for it
  std::vector<std::string> results;
  if (earlier != nullptr) results = *earlier;
  if (round > 0) {
    if (results.empty()) {
      return InvalidInput("INVALID_LAYER_RESULT",
                          absl::StrCat("round ", round, " of layer ", layer,
                                       " needs the layer's result of the round before"));
    }
    UQ_ASSIGN_OR_RETURN(loaded->before, LoadLayerResult(task.plan_sha256, {layer, round - 1},
                                                        results.back(), task.env));
    results.pop_back();
  }
  if (!task.reconstructs) return absl::OkStatus();
  UQ_ASSIGN_OR_RETURN(loaded->rope, MakeRopeTables(task.env.backend, task.config().ropes,
                                                   task.plan().sequence_length));
  UQ_RETURN_IF_ERROR(ObtainInputs(task, earlier == nullptr ? nullptr : &results, loaded));
  return WarmUp(task, loaded->rope);
}

absl::Status LoadWeights(const LayerTask& task, Loaded* loaded) {
  ReportProgress(task.env, "loading", 0, 1);
  HostBlock original;
  std::vector<Tensor> copied_ahead;  // linear weights that are on the device already
  std::optional<absl::StatusOr<NextBlock::Ready>> ready;
  if (task.cache() != nullptr) {
    ready = task.cache()->next_block().Take(task.plan_sha256, task.at.layer);
  }
  if (ready && ready->ok()) {
    original = std::move((*ready)->host);
    copied_ahead = std::move((*ready)->linear);
  } else {
    UQ_ASSIGN_OR_RETURN(original, task.context.checkpoint->LoadBlock(task.at.layer));
  }
  loaded->original = std::make_shared<const HostBlock>(std::move(original));
  const int next = task.at.layer + 1;
  if (next < task.plan().num_layers) {
    const uint64_t size_bytes = NextBlock::DeviceBytes(task.config().blocks[next], task.env.act);
    ReadAhead(task, next, /*copy=*/size_bytes <= loaded->memory.spare_bytes);
  }
  UQ_ASSIGN_OR_RETURN(loaded->weights, UploadBlock(task.env.backend, task.block(), task.env.act,
                                                   *loaded->original, std::move(copied_ahead)));
  return absl::OkStatus();
}

std::vector<std::string> DoubtsAbout(const LayerTask& task, const HostBlock& original) {
  std::vector<std::string> doubts;
  const BlockSpec& block = task.block();
  for (size_t t = 0; t < block.tensors.size(); ++t) {
    const TensorSpec& tensor = block.tensors[t];
    if (tensor.role == TensorRole::kVector) continue;
    const auto num_zeros = std::count(original[t].begin(), original[t].end(), 0.0f);
    if (static_cast<double>(num_zeros) < kDoubtfulZeros * static_cast<double>(original[t].size())) {
      continue;
    }
    doubts.push_back(absl::StrFormat(
        "the original model is doubtful: %.4g%% of %s%s are zeros; look for an incomplete download",
        100.0 * static_cast<double>(num_zeros) / static_cast<double>(original[t].size()),
        task.config().LayerPrefix(task.at.layer), tensor.stored.name));
  }
  return doubts;
}

absl::Status ComputeTargets(const LayerTask& task, Loaded* loaded) {
  ReportProgress(task.env, "activations", 0, 2);
  LayerInputs& inputs = loaded->inputs;
  const Shape& shape = inputs.x_fp.shape();
  if (!inputs.spare.empty() && inputs.spare.shape() == shape) {
    loaded->y_fp = std::move(inputs.spare);
  } else {
    UQ_ASSIGN_OR_RETURN(loaded->y_fp,
                        SequenceBuffer::Allocate(task.env.backend, loaded->memory.activations,
                                                 task.env.act, shape[0], shape[1], shape[2]));
  }
  return ForwardBlock(task.env.backend, task.block(), loaded->rope, loaded->weights, inputs.x_fp,
                      &loaded->y_fp, task.env.stop);
}

bool HasInputs(const LayerTask& task, const Loaded& loaded) {
  return !loaded.inputs.x_fp.empty() && (task.at.layer == 0 || !loaded.inputs.x_q.empty() ||
                                         !NeedsQuantizedInputs(task.plan().spec));
}

}  // namespace uniquanf
