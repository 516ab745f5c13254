// Small models and token files made on the spot, editable before they are written, for tests that
// need a checkpoint with something particular (or wrong) about it.
#ifndef UNIQUANF_TESTS_SUPPORT_MODEL_FIXTURE_H_
#define UNIQUANF_TESTS_SUPPORT_MODEL_FIXTURE_H_

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/safetensors/safetensors.h"

namespace uniquanf {

struct FixtureTensor {
  std::vector<int64_t> shape;
  std::vector<float> values;
  SafetensorsDType dtype = SafetensorsDType::kBF16;  // kF32, kF16 or kBF16
};

struct FixtureModel {
  nlohmann::json config;
  std::map<std::string, FixtureTensor> tensors;

  // A two-layer model of the family ("llama", "mistral", "qwen2", "qwen3") with hidden size 64, 4
  // heads of 16 (2 for keys and values), MLP 96, vocabulary 128, tied embeddings, random weights.
  static FixtureModel Make(const std::string& family, uint64_t seed);
  // Writes config.json and model.safetensors into `dir`, which is created. Aborts the test on
  // failure.
  void Write(const std::string& dir) const;
};

// Writes {name: int32 tensor} into one safetensors file.
struct FixtureTokens {
  std::vector<int64_t> shape;
  std::vector<int32_t> ids;
};
void WriteTokenFile(const std::string& path, const std::map<std::string, FixtureTokens>& entries);
// Ids drawn from [0, vocab_size).
FixtureTokens RandomTokens(std::vector<int64_t> shape, int vocab_size, uint64_t seed);

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_SUPPORT_MODEL_FIXTURE_H_
