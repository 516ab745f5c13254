// Parsers of bytes that are not ours, a row each; the same rows are a deterministic test of every
// run (mutation_test) and libFuzzer targets (uniquanf_fuzz).
#ifndef UNIQUANF_TESTS_FUZZ_FUZZ_TARGET_H_
#define UNIQUANF_TESTS_FUZZ_FUZZ_TARGET_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/object_store/object_store.h"

namespace uniquanf {

struct FuzzTarget {
  std::string name;
  // May be given anything, must return, and aborts the process where an invariant of what was
  // accepted does not hold. Returns whether the bytes were accepted.
  bool (*run)(absl::string_view bytes);
  // Accepted, each of them.
  std::vector<std::string> seeds;
  // What the format means something by, for mutations to insert.
  std::vector<std::string> words;
  // Of mutated seeds at most this part is accepted: else the mutations, or the parser, test
  // nothing.
  double max_accepted = 0.5;
};

std::vector<FuzzTarget> ArtifactTargets();
std::vector<FuzzTarget> EngineTargets();
std::vector<FuzzTarget> TextTargets();
std::vector<FuzzTarget> ServiceTargets();
// All that this build has.
std::vector<FuzzTarget> AllFuzzTargets();

// Aborts unless `status` is what users are to see: an error of one of the kinds that blame the
// input, with a reason.
void CheckRefusal(const absl::Status& status);

// Objects in memory, by key.
std::shared_ptr<ObjectStore> NewMemoryStore(std::map<std::string, std::string> objects);

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_FUZZ_FUZZ_TARGET_H_
