// The entry point that libFuzzer calls. The environment says which parser: UNIQUANF_FUZZ_TARGET is
// a name of fuzz_target.h's rows, or "list", which prints them. With UNIQUANF_FUZZ_SEEDS=DIR the
// row's seeds are written there and its words to DIR.dict, in libFuzzer's form, and nothing is run.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "tests/fuzz/fuzz_target.h"
#include "tests/support/mutator.h"

namespace {

const uniquanf::FuzzTarget* target = nullptr;

void WriteSeeds(const std::string& directory) {
  for (size_t i = 0; i < target->seeds.size(); ++i) {
    std::ofstream(directory + "/seed-" + std::to_string(i), std::ios::binary) << target->seeds[i];
  }
  std::ofstream dictionary(directory + ".dict");
  std::vector<std::string> words = uniquanf::JsonDictionary();
  words.insert(words.end(), target->words.begin(), target->words.end());
  for (const std::string& word : words) {
    if (word.empty()) continue;
    dictionary << '"';
    for (const char c : word) {
      char escaped[5];
      std::snprintf(escaped, sizeof(escaped), "\\x%02x", static_cast<unsigned char>(c));
      dictionary << escaped;
    }
    dictionary << "\"\n";
  }
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  static const std::vector<uniquanf::FuzzTarget> targets = uniquanf::AllFuzzTargets();
  const char* name = std::getenv("UNIQUANF_FUZZ_TARGET");
  for (const uniquanf::FuzzTarget& row : targets) {
    if (name != nullptr && std::string(name) == "list") std::puts(row.name.c_str());
    if (name != nullptr && row.name == name) target = &row;
  }
  if (target == nullptr) {
    if (name != nullptr && std::string(name) == "list") std::exit(0);
    std::fprintf(stderr, "UNIQUANF_FUZZ_TARGET names no target; \"list\" prints them\n");
    std::exit(2);
  }
  if (const char* directory = std::getenv("UNIQUANF_FUZZ_SEEDS")) {
    WriteSeeds(directory);
    std::exit(0);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  target->run(absl::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
