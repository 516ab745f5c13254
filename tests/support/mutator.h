// Seeded damage to bytes, for tests that feed parsers what nobody would write by hand.
#ifndef UNIQUANF_TESTS_SUPPORT_MUTATOR_H_
#define UNIQUANF_TESTS_SUPPORT_MUTATOR_H_

#include <cstdint>
#include <string>
#include <vector>

namespace uniquanf {

// `input` with 1 to 8 mutations chosen by (seed, round): flipped bits, bytes set, ranges removed,
// repeated or swapped, truncation, and words of `dictionary` written over or inserted.
std::string Mutate(const std::string& input, const std::vector<std::string>& dictionary,
                   uint64_t seed, uint64_t round);

// Words that JSON parsers trip over, and numbers at the edges of their types.
std::vector<std::string> JsonDictionary();

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_SUPPORT_MUTATOR_H_
