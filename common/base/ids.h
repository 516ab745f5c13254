// Source of fresh identifiers (jobs, workers, leases, sessions); injected so that tests can replay.
#ifndef UNIQUANF_COMMON_BASE_IDS_H_
#define UNIQUANF_COMMON_BASE_IDS_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace uniquanf {

class IdGenerator {
 public:
  virtual ~IdGenerator() = default;
  // "`prefix`-" and 20 characters of [0-9a-z] (100 random bits): unique without coordination.
  virtual std::string NewId(absl::string_view prefix) = 0;
};

// Reads the operating system's random source; thread-safe.
std::unique_ptr<IdGenerator> NewRandomIdGenerator();
// The same ids in the same order for the same seed; thread-safe. For tests.
std::unique_ptr<IdGenerator> NewSeededIdGenerator(uint64_t seed);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_IDS_H_
