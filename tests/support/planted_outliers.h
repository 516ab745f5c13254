// Plants outlier channels into a model without changing its function, as models with massive
// activations have them: norms × 2^k in a few channels and what reads them × 2^-k; likewise between
// up_proj and down_proj and between v_proj and o_proj.
#ifndef UNIQUANF_TESTS_SUPPORT_PLANTED_OUTLIERS_H_
#define UNIQUANF_TESTS_SUPPORT_PLANTED_OUTLIERS_H_

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/model_fixture.h"

namespace uniquanf {

// `model` has Llama's tensor names. head_dim and the two counts of heads say which columns of
// o_proj read a value channel. norms: of both norms of every layer; pairs: of up/down and v/o.
inline void PlantOutliers(int exponent, bool norms, bool pairs, int num_layers, int64_t head_dim,
                          int64_t num_heads, int64_t num_kv_heads, FixtureModel* model) {
  const std::vector<int64_t> channels = {3, 17, 29};
  const float up = std::ldexp(1.0f, exponent), down = std::ldexp(1.0f, -exponent);
  const auto columns = [&](const std::string& name, int64_t column) {
    FixtureTensor& tensor = model->tensors.at(name);
    for (int64_t row = 0; row < tensor.shape[0]; ++row) {
      tensor.values[row * tensor.shape[1] + column] *= down;
    }
  };
  const auto row = [&](const std::string& name, int64_t index) {
    FixtureTensor& tensor = model->tensors.at(name);
    for (int64_t k = 0; k < tensor.shape[1]; ++k) tensor.values[index * tensor.shape[1] + k] *= up;
  };
  for (int layer = 0; layer < num_layers; ++layer) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    for (const int64_t c : channels) {
      if (norms) {
        model->tensors.at(prefix + "input_layernorm.weight").values[c] *= up;
        model->tensors.at(prefix + "post_attention_layernorm.weight").values[c] *= up;
        for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                 "mlp.gate_proj", "mlp.up_proj"}) {
          columns(absl::StrCat(prefix, name, ".weight"), c);
        }
      }
      if (!pairs) continue;
      row(prefix + "mlp.up_proj.weight", c);
      columns(prefix + "mlp.down_proj.weight", c);
      if (c >= num_kv_heads * head_dim) continue;
      row(prefix + "self_attn.v_proj.weight", c);
      const std::string bias = prefix + "self_attn.v_proj.bias";
      if (model->tensors.count(bias) > 0) model->tensors.at(bias).values[c] *= up;
      const int64_t share = num_heads / num_kv_heads;
      for (int64_t h = c / head_dim * share; h < (c / head_dim + 1) * share; ++h) {
        columns(prefix + "self_attn.o_proj.weight", h * head_dim + c % head_dim);
      }
    }
  }
}

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_SUPPORT_PLANTED_OUTLIERS_H_
