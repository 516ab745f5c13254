// Every parser of untrusted bytes against seeded damage to sound input. A failure prints seed and
// round; UNIQUANF_MUTATION_SEED and UNIQUANF_MUTATION_ROUNDS change them.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/mutator.h"

namespace uniquanf {

// For messages: the row's bytes would be no help.
void PrintTo(const FuzzTarget& target, std::ostream* out) { *out << target.name; }

namespace {

uint64_t FromEnvironment(const char* name, uint64_t fallback) {
  const char* text = getenv(name);
  uint64_t value = fallback;
  if (text != nullptr && !absl::SimpleAtoi(text, &value)) value = fallback;
  return value;
}

class MutationTest : public testing::TestWithParam<FuzzTarget> {};

// Most damage must be refused, and some must get through: else the mutations test nothing.
TEST_P(MutationTest, DamageIsRefusedOrHarmless) {
  const FuzzTarget& target = GetParam();
  const uint64_t seed = FromEnvironment("UNIQUANF_MUTATION_SEED", 1);
  const uint64_t num_rounds = FromEnvironment("UNIQUANF_MUTATION_ROUNDS", 20000);
  std::vector<std::string> dictionary = JsonDictionary();
  dictionary.insert(dictionary.end(), target.words.begin(), target.words.end());
  // At once, since a crash prints nothing more.
  fprintf(stderr, "seed %llu\n", static_cast<unsigned long long>(seed));
  uint64_t num_accepted = 0;
  for (const std::string& input : target.seeds) ASSERT_TRUE(target.run(input)) << input;
  for (uint64_t round = 0; round < num_rounds; ++round) {
    SCOPED_TRACE(absl::StrCat("seed ", seed, " round ", round));
    const std::string& input = target.seeds[round % target.seeds.size()];
    num_accepted += target.run(Mutate(input, dictionary, seed, round));
  }
  printf("%llu of %llu mutations accepted\n", static_cast<unsigned long long>(num_accepted),
         static_cast<unsigned long long>(num_rounds));
  EXPECT_GT(num_accepted, 0u);
  EXPECT_LE(static_cast<double>(num_accepted),
            target.max_accepted * static_cast<double>(num_rounds));
}

INSTANTIATE_TEST_SUITE_P(Parsers, MutationTest, testing::ValuesIn(AllFuzzTargets()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace uniquanf
