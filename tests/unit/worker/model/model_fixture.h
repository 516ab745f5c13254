// A small random checkpoint that tests write to a directory, whole or with one thing wrong.
#ifndef UNIQUANF_TESTS_UNIT_WORKER_MODEL_MODEL_FIXTURE_H_
#define UNIQUANF_TESTS_UNIT_WORKER_MODEL_MODEL_FIXTURE_H_

#include <map>
#include <string>
#include <vector>

#include "common/safetensors/safetensors.h"

namespace uniquanf {

struct FixtureTensor {
  SafetensorsDType dtype = SafetensorsDType::kF32;
  std::vector<int64_t> shape;
  std::vector<float> values;  // written as F32, or rounded to BF16
  std::string bytes = {};     // of other dtypes; zeros where empty
};
using FixtureTensors = std::map<std::string, FixtureTensor>;

struct FixtureOptions {
  std::string architecture = "LlamaForCausalLM";
  int num_layers = 2;
  bool tied = true;
  bool qk_norm = false;
  bool qkv_bias = false;
  int vocab_size = 40;
};

// config.json of a model with H = 16, I = 24, 2 query heads, 1 key/value head, D = 8.
std::string FixtureConfig(const FixtureOptions& options);
FixtureTensors MakeFixtureTensors(const FixtureOptions& options);
// The bytes of a safetensors file that holds `tensors`.
std::string FixtureFile(const FixtureTensors& tensors);
// Writes config.json and model.safetensors.
void WriteFixture(const std::string& dir, const FixtureOptions& options,
                  const FixtureTensors& tensors);

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_UNIT_WORKER_MODEL_MODEL_FIXTURE_H_
