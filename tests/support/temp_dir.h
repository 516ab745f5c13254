// A directory of a test's own, removed at the end with all that is in it.
#ifndef UNIQUANF_TESTS_SUPPORT_TEMP_DIR_H_
#define UNIQUANF_TESTS_SUPPORT_TEMP_DIR_H_

#include <cstdint>
#include <string>
#include <vector>

namespace uniquanf {

class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }
  // path() + "/" + name.
  std::string File(const std::string& name) const;
  // Every file below, relative and sorted; for "nothing was left behind".
  std::vector<std::string> Files() const;

 private:
  std::string path_;
};

// A file system of a few pages, mounted for this object's life, to fill up. Needs root and a
// kernel that allows the mount; ask mounted() and skip the test where it is false.
class TinyDisk {
 public:
  explicit TinyDisk(int64_t size_bytes);
  ~TinyDisk();
  bool mounted() const { return mounted_; }
  const std::string& path() const { return dir_.path(); }

 private:
  TempDir dir_;
  bool mounted_ = false;
};

// Whole files; abort the test on failure.
std::string ReadFile(const std::string& path);
void WriteFile(const std::string& path, const std::string& data);

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_SUPPORT_TEMP_DIR_H_
