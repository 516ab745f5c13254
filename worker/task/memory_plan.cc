#include "worker/task/memory_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/format_bytes.h"
#include "common/base/machine_resources.h"
#include "common/base/status.h"
#include "worker/model/checkpoint.h"
#include "worker/quant/gradient_memory.h"
#include "worker/quant/input_moments.h"
#include "worker/quant/kept_start.h"
#include "worker/quant/quantizer.h"
#include "worker/quant/reconstruct.h"

namespace uniquanf {
namespace {

// Norms, biases, losses, a step's parameters, and what allocations are rounded up by.
constexpr uint64_t kSmallTensorBytes = 1 << 20;

// Code, stacks, connections, buffers of BLAS and of reading and packing: measured, with some room.
constexpr uint64_t kProcessBytes = 128 << 20;

// The start, round to nearest, and in a last round the start on that round's inputs.
constexpr uint64_t kMaxKeptStarts = 3;

}  // namespace

LayerMemory EstimateLayerMemory(const Plan& plan, const ModelConfig& config, int layer,
                                const Backend& backend, DType act) {
  const QuantizationSpec& spec = plan.spec;
  const BlockSpec& block = config.blocks[layer];
  const uint64_t act_bytes = DTypeBytes(act);
  const bool reconstructs = NeedsReconstruction(spec);
  const int micro_batch = quant::MicroBatchSize(spec.batch_size, plan.sequence_length);
  LayerMemory memory;
  memory.fixed_bytes = kSmallTensorBytes;
  if (reconstructs) {
    memory.fixed_bytes += quant::GradientBytes(block, act, micro_batch < spec.batch_size);
  }
  for (const TensorSpec& tensor : block.tensors) {
    memory.host_bytes += static_cast<uint64_t>(tensor.num_elements()) * sizeof(float);
  }
  for (int l = 0; l < block.num_linears(); ++l) {
    const auto [num_outputs, num_inputs] = block.LinearShape(l);
    const ModuleSettings settings = SettingsOf(plan, config.ModuleName(layer, l));
    memory.fixed_bytes +=
        static_cast<uint64_t>(num_outputs) * num_inputs * 2 * act_bytes;  // the original and ŵ
    if (settings.full_precision) continue;
    const int64_t group_size = settings.group_size == 0 ? num_inputs : settings.group_size;
    memory.fixed_bytes += quant::QuantizerStateBytes(
        backend, num_outputs, num_inputs, settings.bits, group_size, spec.optimizer_state);
    if (reconstructs && spec.initialization == Initialization::kActivationAware) {
      memory.fixed_bytes += kMaxKeptStarts * quant::KeptStart::Bytes(num_outputs, num_inputs,
                                                                     settings.bits, group_size);
    }
  }
  if (!reconstructs) return memory;
  if (!RowOf(spec.method).trains) {
    memory.fixed_bytes += quant::InputMomentsBytes(block);
    memory.host_bytes += quant::InputMomentsHostBytes(block);
  }
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

bool Fits(const LayerMemory& memory, SequenceBuffer::Placement activations,
          const AvailableMemory& available) {
  const bool on_device = activations == SequenceBuffer::Placement::kDevice;
  const uint64_t device_bytes = on_device ? memory.on_device() : memory.on_host();
  const uint64_t host_bytes = memory.host_bytes + (on_device ? 0 : memory.calibration_bytes);
  if (available.device_is_host) return device_bytes + host_bytes <= available.device_bytes;
  return device_bytes <= available.device_bytes && host_bytes <= available.host_bytes;
}

// The longest sequences, in whole hundreds of tokens, with which the layer fits; 0: none.
int64_t LongestThatFits(Plan plan, const ModelConfig& config, int layer, const Backend& backend,
                        DType act, SequenceBuffer::Placement activations,
                        const AvailableMemory& available) {
  int64_t fits = 0, too_long = plan.sequence_length / 100 + 1;
  while (too_long - fits > 1) {
    const int64_t middle = (fits + too_long) / 2;
    plan.sequence_length = middle * 100;
    const LayerMemory memory = EstimateLayerMemory(plan, config, layer, backend, act);
    (Fits(memory, activations, available) ? fits : too_long) = middle;
  }
  return fits * 100;
}

}  // namespace

AvailableMemory ReadAvailableMemory(const Backend& backend, uint64_t returned_bytes,
                                    uint64_t beside_bytes) {
  const MachineResources machine = ReadMachineResources();
  AvailableMemory available;
  if (backend.kind() == DeviceKind::kCpu) {
    available.device_is_host = machine.memory_is_limited;
    available.device_bytes = machine.memory_bytes;
    if (!machine.memory_is_limited) return available;
    // What this process holds now it either gives back or holds for the layer: what is free at this
    // moment would be too little while the layer before is still being stored.
    const uint64_t usable =
        std::min(machine.memory_bytes, machine.available_memory_bytes + machine.own_memory_bytes);
    available.device_bytes = usable - std::min(usable, kProcessBytes + beside_bytes);
    return available;
  }
  available.device_bytes = backend.memory().free_bytes + returned_bytes;
  if (machine.memory_is_limited) {
    const uint64_t usable = machine.available_memory_bytes;
    available.host_bytes = usable - std::min(usable, beside_bytes);
  }
  return available;
}

uint64_t LayerMemoryBytes(const Plan& plan, const ModelConfig& config, const TaskEnvironment& env) {
  uint64_t most = 0;
  for (int layer = 0; layer < config.num_layers; ++layer) {
    const LayerMemory memory = EstimateLayerMemory(plan, config, layer, *env.backend, env.act);
    const bool is_host = env.backend->kind() == DeviceKind::kCpu;
    most = std::max(most, is_host ? memory.on_device() + memory.host_bytes : memory.on_host());
  }
  return most;
}

absl::StatusOr<MemoryPlan> PlanLayerMemory(const Plan& plan, const ModelConfig& config, int layer,
                                           const AvailableMemory& available,
                                           const TaskEnvironment& env) {
  using Placement = SequenceBuffer::Placement;
  const LayerMemory memory = EstimateLayerMemory(plan, config, layer, *env.backend, env.act);
  for (const Placement placement : {Placement::kDevice, Placement::kHost}) {
    const ActivationPlacement other =
        placement == Placement::kDevice ? ActivationPlacement::kHost : ActivationPlacement::kDevice;
    if (env.activations == other || !Fits(memory, placement, available)) continue;
    const uint64_t needed =
        (placement == Placement::kDevice ? memory.on_device() : memory.on_host()) +
        (available.device_is_host ? memory.host_bytes : 0);
    return MemoryPlan{placement, available.device_bytes - std::min(available.device_bytes, needed)};
  }
  const bool device_only = env.activations == ActivationPlacement::kDevice;
  const Placement tried = device_only ? Placement::kDevice : Placement::kHost;
  const int64_t length =
      LongestThatFits(plan, config, layer, *env.backend, env.act, tried, available);
  std::string remedy =
      available.device_is_host ? "use a worker with more memory" : "use a device with more memory";
  if (length > 0) absl::StrAppend(&remedy, ", or sequences of up to ", length, " tokens");
  if (device_only && Fits(memory, Placement::kHost, available)) {
    absl::StrAppend(&remedy, ", or keep the activations on the host");
  }
  const uint64_t device_bytes = device_only ? memory.on_device() : memory.on_host();
  if (!available.device_is_host && device_bytes <= available.device_bytes) {
    return MakeError(
        absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
        absl::StrCat(
            "layer ", layer, " needs about ",
            FormatBytes(memory.host_bytes + (device_only ? 0 : memory.calibration_bytes)),
            " of host memory (the original weights ", FormatBytes(memory.host_bytes),
            ", calibration activations ", FormatBytes(device_only ? 0 : memory.calibration_bytes),
            "), but ", FormatBytes(available.host_bytes),
            " are free within the limit of this process; raise it",
            length > 0 ? absl::StrCat(", or use sequences of up to ", length, " tokens") : ""));
  }
  const uint64_t host_bytes = available.device_is_host
                                  ? memory.host_bytes + (device_only ? 0 : memory.calibration_bytes)
                                  : 0;
  return MakeError(
      absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
      absl::StrCat("layer ", layer, " needs about ", FormatBytes(device_bytes + host_bytes), " of ",
                   available.device_is_host ? "" : "device ",
                   "memory (weights and optimizer state ", FormatBytes(memory.fixed_bytes),
                   available.device_is_host
                       ? absl::StrCat(", the original weights ", FormatBytes(memory.host_bytes))
                       : "",
                   ", a step on sequences of ", plan.sequence_length, " tokens ",
                   FormatBytes(memory.step_bytes), ", calibration activations ",
                   FormatBytes(memory.calibration_bytes), " ",
                   device_only ? "on the device" : "on the host", "), but ",
                   FormatBytes(available.device_bytes), " are free; ", remedy));
}

}  // namespace uniquanf
