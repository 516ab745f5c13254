#include "worker/task/memory_plan.h"

#include "absl/strings/str_cat.h"
#include "common/base/format_bytes.h"
#include "common/base/status.h"
#include "worker/model/checkpoint.h"
#include "worker/quant/quantizer.h"
#include "worker/quant/reconstruct.h"

namespace uniquanf {
namespace {

// Norms, biases, losses, a step's parameters, and what allocations are rounded up by.
constexpr uint64_t kSmallTensorBytes = 1 << 20;

}  // namespace

LayerMemory EstimateLayerMemory(const Plan& plan, const ModelConfig& config, int layer,
                                const Backend& backend, DType act) {
  const QuantizationSpec& spec = plan.spec;
  const BlockSpec& block = config.blocks[layer];
  const uint64_t act_bytes = DTypeBytes(act);
  const bool reconstructs = NeedsReconstruction(spec);
  const int micro_batch = quant::MicroBatchSize(spec.batch_size, plan.sequence_length);
  // The original, ŵ and, where it is trained, its gradient; a sum of gradients is float32.
  uint64_t weight_bytes = 2 * act_bytes;
  if (reconstructs) weight_bytes += act_bytes;
  if (reconstructs && micro_batch < spec.batch_size && act != DType::kFloat32) {
    weight_bytes += sizeof(float);
  }
  LayerMemory memory;
  memory.fixed_bytes = kSmallTensorBytes;
  for (int l = 0; l < block.num_linears(); ++l) {
    const auto [num_outputs, num_inputs] = block.LinearShape(l);
    const ModuleSettings settings = SettingsForModule(spec, config.ModuleName(layer, l));
    memory.fixed_bytes += static_cast<uint64_t>(num_outputs) * num_inputs * weight_bytes;
    if (settings.full_precision) continue;
    const int64_t group_size = settings.group_size == 0 ? num_inputs : settings.group_size;
    memory.fixed_bytes +=
        quant::QuantizerStateBytes(backend, num_outputs, num_inputs, settings.bits, group_size);
    if (reconstructs && spec.initialization == Initialization::kActivationAware) {
      memory.fixed_bytes += quant::StartBytes(num_outputs, num_inputs, settings.bits, group_size);
    }
  }
  if (!reconstructs) return memory;
  const uint64_t sequence_bytes =
      static_cast<uint64_t>(plan.sequence_length) * block.hidden_size * act_bytes;
  memory.step_bytes = RopeTablesBytes(config.ropes, plan.sequence_length) +
                      BlockRunnerBytes(backend, block, act, micro_batch, plan.sequence_length,
                                       /*with_backward=*/true) +
                      3 * micro_batch * sequence_bytes;           // x, y and dy
  const uint64_t num_kinds = NeedsQuantizedInputs(spec) ? 3 : 2;  // x_fp, y_fp and perhaps x_q
  memory.calibration_bytes = num_kinds * plan.num_samples * sequence_bytes;
  memory.staging_bytes = 2 * num_kinds * micro_batch * sequence_bytes;
  return memory;
}

namespace {

// The longest sequences, in whole hundreds of tokens, with which the layer fits; 0: none.
int64_t LongestThatFits(Plan plan, const ModelConfig& config, int layer, const Backend& backend,
                        DType act, bool on_device, uint64_t available_bytes) {
  int64_t fits = 0, too_long = plan.sequence_length / 100 + 1;
  while (too_long - fits > 1) {
    const int64_t middle = (fits + too_long) / 2;
    plan.sequence_length = middle * 100;
    const LayerMemory memory = EstimateLayerMemory(plan, config, layer, backend, act);
    const uint64_t needed = on_device ? memory.on_device() : memory.on_host();
    (needed <= available_bytes ? fits : too_long) = middle;
  }
  return fits * 100;
}

}  // namespace

absl::StatusOr<MemoryPlan> PlanLayerMemory(const Plan& plan, const ModelConfig& config, int layer,
                                           uint64_t available_bytes, const TaskEnvironment& env) {
  using Placement = SequenceBuffer::Placement;
  const LayerMemory memory = EstimateLayerMemory(plan, config, layer, *env.backend, env.act);
  if (env.activations != ActivationPlacement::kHost && memory.on_device() <= available_bytes) {
    return MemoryPlan{Placement::kDevice, available_bytes - memory.on_device()};
  }
  if (env.activations != ActivationPlacement::kDevice && memory.on_host() <= available_bytes) {
    return MemoryPlan{Placement::kHost, available_bytes - memory.on_host()};
  }
  const bool device_only = env.activations == ActivationPlacement::kDevice;
  const int64_t length =
      LongestThatFits(plan, config, layer, *env.backend, env.act, device_only, available_bytes);
  std::string remedy = "use a device with more memory";
  if (length > 0) absl::StrAppend(&remedy, ", or sequences of up to ", length, " tokens");
  if (device_only && memory.on_host() <= available_bytes) {
    absl::StrAppend(&remedy, ", or keep the activations on the host");
  }
  return MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
                   absl::StrCat("layer ", layer, " needs about ",
                                FormatBytes(device_only ? memory.on_device() : memory.on_host()),
                                " of device memory (weights and optimizer state ",
                                FormatBytes(memory.fixed_bytes), ", a step on sequences of ",
                                plan.sequence_length, " tokens ", FormatBytes(memory.step_bytes),
                                ", calibration activations ", FormatBytes(memory.calibration_bytes),
                                " ", device_only ? "on the device" : "on the host", "), but ",
                                FormatBytes(available_bytes), " are free; ", remedy));
}

}  // namespace uniquanf
