// Who may read what our programs write. State, work in progress and caches are for the user alone
// that a program runs as; artifacts are for its group as well (0750), unless somebody says
// otherwise or the umask takes more away.
//
// Thread safety: RestrictUmask before other threads run; the rest are pure functions.
#ifndef UNIQUANF_COMMON_BASE_FILE_MODES_H_
#define UNIQUANF_COMMON_BASE_FILE_MODES_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace uniquanf {

inline constexpr uint32_t kArtifactMode = 0750;   // of directories
inline constexpr uint32_t kPrivateUmask = 0077;   // of state, work, caches
inline constexpr uint32_t kArtifactUmask = 0027;  // of programs that write artifacts alone

// Adds `bits` to the process's umask; returns what it was.
uint32_t RestrictUmask(uint32_t bits);

// "0750" or "750": the mode of an artifact's directories. Its owner keeps reading, writing and
// passing through. Errors: kInvalidArgument (INVALID_FLAG) says what is allowed.
absl::Status ParseDirectoryMode(absl::string_view text, uint32_t* mode);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_FILE_MODES_H_
