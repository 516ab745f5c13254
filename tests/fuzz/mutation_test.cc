// Every parser of untrusted bytes against seeded damage to sound input. A failure prints seed and
// round; UNIQUANF_MUTATION_SEED and UNIQUANF_MUTATION_ROUNDS change them.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tests/fuzz/fuzz_targets.h"
#include "tests/support/mutator.h"
#include "tests/support/sample_artifact.h"

namespace uniquanf {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t fallback) {
  const char* text = getenv(name);
  uint64_t value = fallback;
  if (text != nullptr && !absl::SimpleAtoi(text, &value)) value = fallback;
  return value;
}

// Most damage must be refused, and some must get through: else the mutations test nothing.
void MutateAll(const std::vector<std::string>& corpus, std::vector<std::string> words,
               bool (*target)(absl::string_view)) {
  const uint64_t seed = FromEnvironment("UNIQUANF_MUTATION_SEED", 1);
  const uint64_t num_rounds = FromEnvironment("UNIQUANF_MUTATION_ROUNDS", 20000);
  std::vector<std::string> dictionary = JsonDictionary();
  dictionary.insert(dictionary.end(), words.begin(), words.end());
  // At once, since a crash prints nothing more.
  fprintf(stderr, "seed %llu\n", static_cast<unsigned long long>(seed));
  uint64_t num_accepted = 0;
  for (const std::string& input : corpus) ASSERT_TRUE(target(input)) << input;
  for (uint64_t round = 0; round < num_rounds; ++round) {
    SCOPED_TRACE(absl::StrCat("seed ", seed, " round ", round));
    num_accepted += target(Mutate(corpus[round % corpus.size()], dictionary, seed, round));
  }
  printf("%llu of %llu mutations accepted\n", static_cast<unsigned long long>(num_accepted),
         static_cast<unsigned long long>(num_rounds));
  EXPECT_GT(num_accepted, 0u);
  EXPECT_LT(num_accepted, num_rounds / 2);
}

const char kHeader[] =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
    R"("b":{"dtype":"BF16","shape":[],"data_offsets":[24,26]},)"
    R"("c":{"dtype":"I64","shape":[4],"data_offsets":[32,64]}})";

TEST(MutationTest, SafetensorsHeader) {
  MutateAll({kHeader, "{}", R"({"x":{"dtype":"U8","shape":[0],"data_offsets":[5,5]}})"},
            {"\"dtype\"", "\"shape\"", "\"data_offsets\"", "\"U64\"", "__metadata__"},
            FuzzSafetensorsHeader);
}

TEST(MutationTest, SafetensorsFile) {
  std::string file(8, '\0');
  const uint64_t header_bytes = std::strlen(kHeader);
  std::memcpy(file.data(), &header_bytes, 8);
  absl::StrAppend(&file, kHeader, std::string(64, '\x7f'));
  MutateAll({file}, {std::string(8, '\xff'), std::string(4, '\0'), "\"I32\"", "\"F16\""},
            FuzzSafetensorsFile);
}

TEST(MutationTest, Manifest) {
  Manifest manifest = SampleManifest();
  manifest.files = {{"a.json", 12, std::string(64, 'a')}};
  manifest.attachments = {"report.html"};
  MutateAll({manifest.ToJson()}, {"\"modules\"", "\"files\"", "\"..\"", "\"a/../b\""},
            FuzzManifest);
}

TEST(MutationTest, Spec) {
  QuantizationSpec spec;
  spec.overrides.push_back({"*.down_proj", 4, 64, false});
  MutateAll({spec.ToJson(), "{}", R"({"bits":3,"overrides":[{"pattern":"*"}]})"},
            {"\"overrides\"", "\"pattern\"", "\"seed\"", "0.5"}, FuzzSpec);
}

}  // namespace
}  // namespace uniquanf
