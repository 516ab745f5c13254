#include "worker/task/memory_plan.h"

#include "common/base/status.h"
#include "worker/model/checkpoint.h"
#include "worker/quant/quantizer.h"

namespace uniquanf {
namespace {

std::string MebiBytes(uint64_t bytes) { return absl::StrCat((bytes >> 20) + 1, " MiB"); }

}  // namespace

LayerMemory EstimateLayerMemory(const Plan& plan, const ModelConfig& config, int layer,
                                const Backend& backend, DType act) {
  const QuantizationSpec& spec = plan.spec;
  const BlockConfig& block = config.blocks[layer];
  const uint64_t act_bytes = DTypeBytes(act);
  const bool reconstructs = NeedsReconstruction(spec);
  LayerMemory memory;
  for (Linear linear : kAllLinears) {
    const auto [num_outputs, num_inputs] = block.LinearShape(linear);
    const ModuleSettings settings = SettingsForModule(spec, ModuleName(layer, linear));
    // The original, ŵ and, where it is trained, its gradient.
    memory.fixed_bytes +=
        static_cast<uint64_t>(num_outputs) * num_inputs * act_bytes * (reconstructs ? 3 : 2);
    if (settings.full_precision) continue;
    memory.fixed_bytes +=
        quant::QuantizerStateBytes(backend, num_outputs, num_inputs, settings.bits,
                                   settings.group_size == 0 ? num_inputs : settings.group_size);
  }
  if (!reconstructs) return memory;
  memory.fixed_bytes += BlockRunnerBytes(backend, block, act, spec.batch_size, plan.sequence_length,
                                         /*with_backward=*/true);
  const uint64_t sequence_bytes =
      static_cast<uint64_t>(plan.sequence_length) * block.hidden_size * act_bytes;
  memory.fixed_bytes += 3 * spec.batch_size * sequence_bytes;     // x, y and dy of a step
  const uint64_t num_kinds = NeedsQuantizedInputs(spec) ? 3 : 2;  // x_fp, y_fp and perhaps x_q
  memory.calibration_bytes = num_kinds * plan.num_samples * sequence_bytes;
  memory.staging_bytes = num_kinds * spec.batch_size * sequence_bytes;
  return memory;
}

absl::StatusOr<SequenceBuffer::Placement> PlaceActivations(const LayerMemory& memory, int layer,
                                                           uint64_t available_bytes,
                                                           const TaskEnvironment& env) {
  using Placement = SequenceBuffer::Placement;
  const bool fits_on_device = memory.on_device() <= available_bytes;
  if (env.activations != ActivationPlacement::kHost && fits_on_device) return Placement::kDevice;
  if (env.activations != ActivationPlacement::kDevice && memory.on_host() <= available_bytes) {
    return Placement::kHost;
  }
  const bool device_only = env.activations == ActivationPlacement::kDevice;
  return MakeError(
      absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
      absl::StrCat("layer ", layer, " needs about ",
                   MebiBytes(device_only ? memory.on_device() : memory.on_host()),
                   " of device memory (weights and optimizer state ", MebiBytes(memory.fixed_bytes),
                   ", calibration activations ", MebiBytes(memory.calibration_bytes), " ",
                   device_only ? "on the device" : "on the host", "), but ",
                   MebiBytes(available_bytes),
                   " are free; use a device with more memory, a smaller "
                   "batch size or shorter sequences"));
}

}  // namespace uniquanf
