// Presets: settings by one word, for who does not want to choose them. A preset is where a spec
// begins; whatever is said besides wins, and a job shows the settings that came of it, never the
// word. What they bring and cost: docs/SETTINGS.md.
//
// Thread safety: free functions over constants. Errors: kInvalidArgument (INVALID_SPEC).
#ifndef UNIQUANF_COMMON_SPEC_PRESETS_H_
#define UNIQUANF_COMMON_SPEC_PRESETS_H_

#include <optional>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/enum_rows.h"
#include "common/spec/quantization_spec.h"

namespace uniquanf {

enum class Preset { kFast, kDefault, kBest };

inline constexpr EnumRow<Preset> kPresets[] = {
    {Preset::kFast, "fast", "few steps a layer, 16-bit optimizer state"},
    {Preset::kDefault, "default", "every setting's default"},
    {Preset::kBest, "best",
     "distillation of 8 layers at a time after a short reconstruction, on text that the model "
     "writes beside the calibration's"},
};

// The settings of a preset, places and all others at their defaults.
QuantizationSpec PresetSpec(Preset preset);

// A spec as a user writes it: QuantizationSpec::FromJson, where the object may also have a member
// "preset" and members that are missing are the preset's. `preset` takes the place of that member.
absl::StatusOr<QuantizationSpec> ReadSpec(absl::string_view json,
                                          std::optional<Preset> preset = std::nullopt);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_SPEC_PRESETS_H_
