#include "common/base/file_modes.h"

#include <sys/stat.h>

#include "common/base/status.h"

namespace uniquanf {

uint32_t RestrictUmask(uint32_t bits) {
  const mode_t before = umask(0777);
  umask(before | static_cast<mode_t>(bits));
  return before;
}

absl::Status ParseDirectoryMode(absl::string_view text, uint32_t* mode) {
  uint32_t value = 0;
  bool octal = text.size() >= 3 && text.size() <= 4;
  for (const char c : text) {
    octal = octal && c >= '0' && c <= '7';
    value = value * 8 + static_cast<uint32_t>(c - '0');
  }
  if (!octal || value > 0777 || (value & 0700) != 0700) {
    return InvalidInput("INVALID_FLAG", "allowed: an octal mode from 0700 to 0777, such as 0750");
  }
  *mode = value;
  return absl::OkStatus();
}

}  // namespace uniquanf
