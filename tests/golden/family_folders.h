// The folders of the family goldens (README.md), for tests over all of them.
#ifndef UNIQUANF_TESTS_GOLDEN_FAMILY_FOLDERS_H_
#define UNIQUANF_TESTS_GOLDEN_FAMILY_FOLDERS_H_

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/golden/golden_file.h"

namespace uniquanf::golden {

inline constexpr const char* kFolders[] = {
    "apertus",
    "arcee",
    "bloom",
    "cohere",
    "cohere2",
    "deepseek_v2",
    "deepseek_v3",
    "dots1",
    "ernie4_5",
    "falcon",
    "falcon_h1",
    "gemma",
    "gemma2",
    "gemma3",
    "glm",
    "glm4",
    "glm4_moe",
    "gpt2",
    "gpt_neox",
    "gpt_oss",
    "granite",
    "granitemoe",
    "granitemoeshared",
    "hunyuan_dense",
    "lfm2",
    "llama",
    "llama4",
    "llama_yarn",
    "mamba2",
    "mimo",
    "ministral",
    "ministral3",
    "mistral",
    "mixtral",
    "nemotron",
    "olmo",
    "olmo3",
    "olmoe",
    "opt",
    "phi",
    "phi3",
    "phi3_longrope",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "qwen3_next",
    "smollm3",
    "stablelm",
    "starcoder2",
};

inline std::string FolderPath(const std::string& folder) {
  return absl::StrCat(UNIQUANF_FAMILY_GOLDENS, "/", folder);
}

struct FamilyCase {
  std::string folder, device;
};
inline std::vector<FamilyCase> FamilyCases() {
  std::vector<FamilyCase> cases;
  for (const std::string& device : DeviceNames()) {
    for (const char* folder : kFolders) cases.push_back({folder, device});
  }
  return cases;
}

}  // namespace uniquanf::golden

#endif  // UNIQUANF_TESTS_GOLDEN_FAMILY_FOLDERS_H_
