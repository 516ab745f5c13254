#include "worker/task/window_memory.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/format_bytes.h"
#include "common/base/status.h"
#include "worker/distill/window.h"
#include "worker/quant/reconstruct.h"

namespace uniquanf {
namespace {
constexpr uint64_t kSmallTensorBytes = 1 << 20;
}  // namespace

WindowMemory EstimateWindowMemory(const Plan& plan, const ModelConfig& config, int first_layer,
                                  const Backend& backend, DType act) {
  const QuantizationSpec& spec = plan.spec;
  const uint64_t act_bytes = DTypeBytes(act);
  const int end = std::min(first_layer + DistillWindow(plan), config.num_layers);
  const bool has_parts = quant::MicroBatchSize(spec.distill_batch_size, plan.sequence_length) <
                         spec.distill_batch_size;
  WindowMemory memory;
  memory.fixed_bytes = kSmallTensorBytes + RopeTablesBytes(config.ropes, plan.sequence_length);
  for (int layer = first_layer; layer < config.num_layers; ++layer) {
    const BlockSpec& block = config.blocks[layer];
    for (const TensorSpec& tensor : block.tensors) {
      const auto elements = static_cast<uint64_t>(tensor.num_elements());
      memory.fixed_bytes += elements * DTypeBytes(DeviceDType(tensor.role, act));
      if (layer < end) memory.host_bytes += elements * sizeof(float);
    }
    for (int l = 0; l < block.num_linears() && layer < end; ++l) {
      const ModuleSettings settings = SettingsOf(plan, config.ModuleName(layer, l));
      if (settings.full_precision) continue;
      const auto [num_outputs, num_inputs] = block.LinearShape(l);
      const int64_t group_size = settings.group_size == 0 ? num_inputs : settings.group_size;
      const uint64_t weights = static_cast<uint64_t>(num_outputs) * num_inputs;
      // The state, its best form so far (codes, α, β), and the gradient.
      memory.fixed_bytes +=
          quant::LatentStateBytes(num_outputs, num_inputs, settings.bits, group_size) + weights +
          weights / group_size * (settings.bits + 1) * sizeof(float) +
          weights * (has_parts ? sizeof(float) : act_bytes);
    }
  }
  const auto trainer_bytes = [&](bool keep) {
    return distill::WindowTrainer::Bytes(backend, config, act, first_layer, spec.distill_batch_size,
                                         plan.sequence_length, keep);
  };
  memory.step_bytes = trainer_bytes(false);
  memory.kept_bytes = trainer_bytes(true) - memory.step_bytes;
  // Inputs of the window and the original's last hidden states.
  memory.hidden_bytes = 2 * (plan.num_samples + plan.num_distillation_samples) *
                        static_cast<uint64_t>(plan.sequence_length) * config.hidden_size *
                        act_bytes;
  return memory;
}

uint64_t WindowMemoryBytes(const Plan& plan, const ModelConfig& config,
                           const TaskEnvironment& env) {
  uint64_t most = 0;
  const int window = DistillWindow(plan);
  for (int first = 0; window > 0 && first < config.num_layers; first += window) {
    const WindowMemory memory = EstimateWindowMemory(plan, config, first, *env.backend, env.act);
    uint64_t bytes = memory.fixed_bytes + memory.step_bytes;
    if (env.backend->kind() == DeviceKind::kCpu) bytes += memory.hidden_bytes + memory.host_bytes;
    most = std::max(most, bytes);
  }
  return most;
}

absl::StatusOr<bool> PlanWindowMemory(const Plan& plan, const ModelConfig& config, int first_layer,
                                      const AvailableMemory& available,
                                      const TaskEnvironment& env) {
  const WindowMemory memory =
      EstimateWindowMemory(plan, config, first_layer, *env.backend, env.act);
  const uint64_t host_bytes = memory.hidden_bytes + memory.host_bytes;
  uint64_t needed = memory.fixed_bytes + memory.step_bytes;
  if (available.device_is_host) needed += host_bytes;
  if (needed > available.device_bytes) {
    return MakeError(
        absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
        absl::StrCat("distilling the window at layer ", first_layer, " needs about ",
                     FormatBytes(needed), " of ", available.device_is_host ? "" : "device ",
                     "memory (weights and optimizer state ", FormatBytes(memory.fixed_bytes),
                     ", a step ", FormatBytes(memory.step_bytes), "), but ",
                     FormatBytes(available.device_bytes),
                     " are free; lower distill_window, or use a worker with more memory"));
  }
  if (!available.device_is_host && host_bytes > available.host_bytes) {
    return MakeError(
        absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
        absl::StrCat("distilling the window at layer ", first_layer, " needs about ",
                     FormatBytes(host_bytes), " of host memory (hidden states ",
                     FormatBytes(memory.hidden_bytes), "), but ", FormatBytes(available.host_bytes),
                     " are free within the limit of this process; raise it, or use fewer or "
                     "shorter sequences"));
  }
  return needed + memory.kept_bytes <= available.device_bytes;
}

}  // namespace uniquanf
