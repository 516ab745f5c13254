// One function per parser of untrusted bytes. Each may see anything, must return, and aborts the
// process where an invariant of what was accepted does not hold; whether bytes were accepted is
// returned, so that a test can see that it reaches both outcomes.
#ifndef UNIQUANF_TESTS_FUZZ_FUZZ_TARGETS_H_
#define UNIQUANF_TESTS_FUZZ_FUZZ_TARGETS_H_

#include "absl/strings/string_view.h"

namespace uniquanf {

bool FuzzSafetensorsHeader(absl::string_view bytes);  // the JSON alone, before 1000 data bytes
bool FuzzSafetensorsFile(absl::string_view bytes);    // a whole file; reads every tensor
bool FuzzManifest(absl::string_view bytes);
bool FuzzSpec(absl::string_view bytes);

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_FUZZ_FUZZ_TARGETS_H_
