// Counts how often a file of some name appears in a directory, by whatever means.
//
// Thread safety: none. Errors: none is reported; a directory that cannot be watched counts nothing.
#ifndef UNIQUANF_TESTS_FAULT_APPEARANCE_COUNTER_H_
#define UNIQUANF_TESTS_FAULT_APPEARANCE_COUNTER_H_

#include <string>

namespace uniquanf {

class AppearanceCounter {
 public:
  // From now on. The directory must exist.
  AppearanceCounter(const std::string& dir, std::string name);
  ~AppearanceCounter();
  AppearanceCounter(const AppearanceCounter&) = delete;
  AppearanceCounter& operator=(const AppearanceCounter&) = delete;

  int Count();

 private:
  const std::string name_;
  int fd_ = -1;
  int count_ = 0;
};

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_FAULT_APPEARANCE_COUNTER_H_
