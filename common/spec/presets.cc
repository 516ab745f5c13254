#include "common/spec/presets.h"

namespace uniquanf {

QuantizationSpec PresetSpec(Preset preset) {
  QuantizationSpec spec;
  switch (preset) {
    case Preset::kDefault:
      break;
    case Preset::kFast:
      spec.epochs = 2;
      spec.optimizer_state = OptimizerState::kBf16;
      break;
    case Preset::kBest:
      spec.epochs = 5;
      spec.sequence_length = 512;
      spec.self_samples = 2048;
      spec.distill_window = 8;
      spec.distill_steps = 1200;
      spec.distill_learning_rate = 4e-3;
      break;
  }
  return spec;
}

}  // namespace uniquanf
