// The flags that describe a quantization, the same in every program that takes them.
// Thread safety: free functions. Errors: kInvalidArgument (INVALID_FLAG, INVALID_SPEC).
#ifndef UNIQUANF_COMMON_SPEC_SPEC_FLAGS_H_
#define UNIQUANF_COMMON_SPEC_SPEC_FLAGS_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/flag_set.h"
#include "common/spec/presets.h"
#include "common/spec/quantization_spec.h"

namespace uniquanf {

// The JSON of a spec, from where --spec says.
using SpecReader = std::function<absl::StatusOr<std::string>(absl::string_view where)>;

// Declares --model, --calibration, --output, --bits and so on, and --spec FILE.json, which is read
// first, so that the other flags override it. `spec` holds the defaults and must outlive the parse.
// --override may repeat; overrides from flags come before those of the file, in the flags' order
// (the first match wins). --preset is where all begins: the file's fields and the other flags
// override it, and it takes the place of a preset that the file names. Call spec->Validate() after
// the parse.
// `read_spec`: of programs that read more than files of JSON. `preset` holds what --preset said
// when early flags are applied, for other flags that read a spec.
using PresetFlag = std::shared_ptr<std::optional<Preset>>;
void AddSpecFlags(FlagSet* flags, QuantizationSpec* spec, SpecReader read_spec = nullptr,
                  PresetFlag preset = std::make_shared<std::optional<Preset>>());

// Declares the flags of text alone (--text-field and so on), for commands that read text
// themselves.
void AddTextFlags(FlagSet* flags, QuantizationSpec* spec);

// "FILE:num=N".
absl::StatusOr<CalibrationShare> ParseCalibrationShare(absl::string_view text);

// "PATTERN=full" or "PATTERN=bits:3,group:64" (either part alone is fine).
absl::StatusOr<ModuleOverride> ParseModuleOverride(absl::string_view text);

// What --override takes for `module_override`.
std::string FormatModuleOverride(const ModuleOverride& module_override);

// `path` as a URI: a plain path becomes an absolute, lexically normalized file:///...; "" and what
// has a scheme already stay.
std::string AbsoluteUri(absl::string_view path);

// AbsoluteUri over all places of `spec`: a server has another working directory.
void MakeUrisAbsolute(QuantizationSpec* spec);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_SPEC_SPEC_FLAGS_H_
