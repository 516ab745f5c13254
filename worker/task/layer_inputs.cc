#include "worker/task/layer_inputs.h"

#include <future>
#include <utility>

#include "common/artifact/layout.h"
#include "common/base/status.h"
#include "common/safetensors/safetensors.h"
#include "worker/model/language_model.h"
#include "worker/task/content_store.h"
#include "worker/task/lost_inputs.h"
#include "worker/task/model_changes.h"
#include "worker/task/tokens.h"

namespace uniquanf {
namespace {

absl::Status ForwardHostBlock(const TaskContext& context, int layer, const HostBlock& block,
                              const RopeTables& rope, const TaskEnvironment& env,
                              SequenceBuffer* hidden) {
  const BlockSpec& spec = context.checkpoint->config().blocks[layer];
  UQ_ASSIGN_OR_RETURN(const BlockWeights weights, UploadBlock(env.backend, spec, env.act, block));
  return ForwardBlock(env.backend, spec, rope, weights, *hidden, hidden, env.stop);
}

// A vector that was scaled or trained, as the block computes with it.
absl::StatusOr<std::vector<float>> ReadVector(const SafetensorsFile& shard, const std::string& name,
                                              const TensorSpec& tensor) {
  UQ_ASSIGN_OR_RETURN(const TensorInfo info, shard.Find(name));
  if (info.num_elements() != tensor.num_elements()) {
    return InvalidInput("TENSOR_SHAPE",
                        absl::StrCat("tensor \"", name, "\" has ", info.num_elements(),
                                     " elements, expected ", tensor.num_elements()));
  }
  std::vector<float> values(tensor.num_elements());
  UQ_RETURN_IF_ERROR(shard.ReadFloat(info, values.data()));
  for (float& value : values) value += tensor.stored.added;
  return values;
}

// The result lists the layer's linear layers with their shapes; it was stored by some other
// program.
absl::Status CheckModules(const LayerResult& result, const ModelConfig& config) {
  const BlockSpec& spec = config.blocks[result.layer];
  bool agrees = static_cast<int>(result.modules.size()) == spec.num_linears();
  for (int l = 0; agrees && l < spec.num_linears(); ++l) {
    const ModuleResult& module = result.modules[l];
    agrees = module.name == config.ModuleName(result.layer, l) &&
             std::pair(module.num_outputs, module.num_inputs) == spec.LinearShape(l);
  }
  if (agrees) return absl::OkStatus();
  return InvalidInput(
      "INVALID_LAYER_RESULT",
      absl::StrCat("the result of layer ", result.layer,
                   " does not list the model's linear layers; run the layer again"));
}

}  // namespace

absl::StatusOr<HostBlock> LoadStoredBlock(const TaskContext& context, const LayerResult& result,
                                          const TaskEnvironment& env) {
  const BlockSpec& spec = context.checkpoint->config().blocks[result.layer];
  UQ_RETURN_IF_ERROR(CheckModules(result, context.checkpoint->config()));
  UQ_ASSIGN_OR_RETURN(HostBlock block, context.checkpoint->LoadBlock(result.layer));
  UQ_RETURN_IF_ERROR(CheckWeightsUnchanged(*context.checkpoint, result, block));
  const auto opened = SafetensorsFile::Open(env.work, ContentKey(result.shard_sha256));
  if (!opened.ok()) return NoteWorkObject(opened.status(), result.shard_sha256);
  const auto& shard = *opened;
  for (int l = 0; l < spec.num_linears(); ++l) {
    const ModuleResult& module = result.modules[l];
    if (!module.quantized) continue;
    const absl::StatusOr<PackedLinear> packed = ReadPackedLinear(
        *shard, module.name, module.bits, module.num_outputs, module.num_inputs, module.group_size);
    if (!packed.ok()) return NoteWorkObject(packed.status(), result.shard_sha256);
    Dequantize(*packed, block[spec.linears[l]].data());
  }
  const std::string prefix = context.checkpoint->config().LayerPrefix(result.layer);
  for (const std::string& name : result.changed_vectors) {
    const int tensor = spec.FindTensor(name);
    if (tensor < 0 || spec.tensors[tensor].role == TensorRole::kLinear) {
      return InvalidInput("INVALID_LAYER_RESULT",
                          absl::StrCat("the result of layer ", result.layer, " names the vector \"",
                                       name, "\", which the model does not have"));
    }
    UQ_ASSIGN_OR_RETURN(block[tensor], ReadVector(*shard, prefix + name, spec.tensors[tensor]));
  }
  return block;
}

absl::StatusOr<LayerInputs> RecomputeLayerInputs(
    const TaskContext& context, const std::string& plan_sha256, LayerRound layer_round,
    const std::vector<std::string>& earlier, const RopeTables& rope,
    SequenceBuffer::Placement placement, const TaskEnvironment& env) {
  const Plan& plan = context.plan;
  const int layer = layer_round.layer;
  const bool needs_quantized = NeedsQuantizedInputs(plan.spec);
  std::vector<LayerResult> results;
  if (needs_quantized) {
    UQ_ASSIGN_OR_RETURN(results, LoadLayerResults(plan_sha256, layer_round.round, earlier, env));
    if (static_cast<int>(results.size()) < layer) {
      return InvalidInput("INVALID_LAYER_RESULT",
                          absl::StrCat("layer ", layer,
                                       " needs the results of all layers before it, "
                                       "but only ",
                                       results.size(), " were given"));
    }
  }
  UQ_ASSIGN_OR_RETURN(const std::string token_bytes,
                      GetContent(env.work.get(), plan.calibration_sha256, kMaxTokenBytes));
  LayerInputs inputs;
  UQ_ASSIGN_OR_RETURN(inputs.x_fp, EmbedSequences(env.backend, *context.checkpoint, env.act,
                                                  placement, TokensFromBytes(token_bytes),
                                                  plan.num_samples, plan.sequence_length));
  if (needs_quantized && layer > 0) {
    UQ_ASSIGN_OR_RETURN(inputs.x_q, inputs.x_fp.Clone());
  }
  // A device computes while the next block is read; the CPU has nothing to gain from that.
  const std::launch policy =
      env.backend->kind() == DeviceKind::kCpu ? std::launch::deferred : std::launch::async;
  const auto load = [&context](int l) { return context.checkpoint->LoadBlock(l); };
  std::future<absl::StatusOr<HostBlock>> next;
  if (layer > 0) next = std::async(policy, load, 0);
  for (int before = 0; before < layer; ++before) {
    if (IsCancelled(env)) return CancelledError();
    ReportProgress(env, "activations", before, layer);
    UQ_ASSIGN_OR_RETURN(const HostBlock original, next.get());
    if (before + 1 < layer) next = std::async(policy, load, before + 1);
    UQ_RETURN_IF_ERROR(ForwardHostBlock(context, before, original, rope, env, &inputs.x_fp));
    if (!needs_quantized) continue;
    UQ_ASSIGN_OR_RETURN(const HostBlock stored, LoadStoredBlock(context, results[before], env));
    UQ_RETURN_IF_ERROR(ForwardHostBlock(context, before, stored, rope, env, &inputs.x_q));
  }
  return inputs;
}

}  // namespace uniquanf
