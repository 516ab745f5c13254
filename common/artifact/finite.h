// Whether the values of a tensor in full precision are numbers.
#ifndef UNIQUANF_COMMON_ARTIFACT_FINITE_H_
#define UNIQUANF_COMMON_ARTIFACT_FINITE_H_

#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"
#include "common/safetensors/safetensors.h"

namespace uniquanf {

// False for tensors of old checkpoints that follow from the config, causal masks and rotary
// frequencies, which nobody reads and of which masks hold infinities.
bool MustBeFinite(absl::string_view tensor_name);

// The first element of little-endian `bytes` that is NaN or an infinity; nullopt: there is none, or
// the type has none.
std::optional<int64_t> FindNotFinite(SafetensorsDType dtype, absl::string_view bytes);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_ARTIFACT_FINITE_H_
