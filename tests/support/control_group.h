// A control group with limits, as a container has one, for this object's life: of version 1 or 2,
// whichever the machine has. Needs root and a kernel that lets groups be made here; ask made() and
// skip the test with problem() where it is false. The destructor expects that its processes have
// ended.
#ifndef UNIQUANF_TESTS_SUPPORT_CONTROL_GROUP_H_
#define UNIQUANF_TESTS_SUPPORT_CONTROL_GROUP_H_

#include <cstdint>
#include <string>
#include <vector>

namespace uniquanf {

class ControlGroup {
 public:
  // `num_cpus`: processors' worth of time.
  ControlGroup(uint64_t memory_bytes, double num_cpus);
  ~ControlGroup();
  ControlGroup(const ControlGroup&) = delete;
  ControlGroup& operator=(const ControlGroup&) = delete;

  bool made() const { return problem_.empty(); }
  const std::string& problem() const { return problem_; }
  // A command that runs the program that its arguments name in the group.
  std::vector<std::string> wrapper() const;
  // Of all processes in the group, page cache included.
  uint64_t peak_memory_bytes() const;

 private:
  bool Make(const std::string& directory);
  void Set(const std::string& path, const std::string& value);

  std::string problem_;
  std::vector<std::string> directories_;  // one for each hierarchy
};

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_SUPPORT_CONTROL_GROUP_H_
