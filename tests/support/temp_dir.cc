#include "tests/support/temp_dir.h"

#include <stdlib.h>
#include <sys/mount.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace uniquanf {

TempDir::TempDir() {
  std::string pattern = std::filesystem::temp_directory_path().string() + "/uniquanf-test-XXXXXX";
  UQ_CHECK(mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string TempDir::File(const std::string& name) const { return absl::StrCat(path_, "/", name); }

std::vector<std::string> TempDir::Files() const {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path_)) {
    if (!entry.is_directory() || entry.is_symlink()) {
      files.push_back(std::filesystem::relative(entry.path(), path_).string());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

TinyDisk::TinyDisk(int64_t size_bytes) {
  mounted_ = mount("tmpfs", dir_.path().c_str(), "tmpfs", MS_NOSUID | MS_NODEV,
                   absl::StrCat("size=", size_bytes).c_str()) == 0;
}

TinyDisk::~TinyDisk() {
  if (mounted_) umount2(dir_.path().c_str(), MNT_DETACH);
}

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  UQ_CHECK(in.good());
  return std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
}

void WriteFile(const std::string& path, const std::string& data) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(data.data(), static_cast<std::streamsize>(data.size()));
  out.close();
  UQ_CHECK(out.good());
}

}  // namespace uniquanf
