#include "common/base/ready_file.h"

#include <filesystem>
#include <fstream>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace uniquanf {

absl::Status WriteReadyFile(const std::string& path, absl::string_view line) {
  if (path.empty()) return absl::OkStatus();
  const std::string temporary = absl::StrCat(path, ".tmp");
  std::ofstream out(temporary, std::ios::trunc);
  out << line << "\n";
  out.close();
  std::error_code error;
  if (out) std::filesystem::rename(temporary, path, error);
  if (!out || error) {
    return FailedPrecondition("READY_FILE", absl::StrCat("cannot write --ready-file=", path));
  }
  return absl::OkStatus();
}

}  // namespace uniquanf
