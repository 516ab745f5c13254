// What the files of worker/model/families read alike: sizes, rotary settings, windows, activation.
//
// Errors: those of config_fields.h.
#ifndef UNIQUANF_WORKER_MODEL_FAMILY_FIELDS_H_
#define UNIQUANF_WORKER_MODEL_FAMILY_FIELDS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/block/block_traits.h"
#include "worker/model/config_fields.h"
#include "worker/model/model_config.h"

namespace uniquanf {

// What a family calls the fields that all have. An empty name: it has none, the default holds.
struct FieldNames {
  absl::string_view layers = "num_hidden_layers", hidden = "hidden_size";
  absl::string_view heads = "num_attention_heads", kv_heads = "num_key_value_heads";
  absl::string_view head_dim = "head_dim", intermediate = "intermediate_size";
  absl::string_view eps = "rms_norm_eps", vocab = "vocab_size";
  absl::string_view positions = "max_position_embeddings", theta = "rope_theta";
};

// Defaults of a family's Hugging Face configuration class, which files leave out when they agree
// with them. Without a value the field must be there.
struct FamilyDefaults {
  std::optional<int64_t> vocab_size;
  int64_t kv_heads = 0;  // 0: as many as query heads
  int64_t head_dim = 0;  // 0: hidden_size / num_attention_heads
  int64_t max_positions = 2048;
  bool tied = false;
  double theta = 10000.0;
  double norm_eps = 1e-6;
  std::optional<double> rotated;  // part of a head; none: all of it, and no field says otherwise
  bool odd_heads = false;         // sizes need not be even: nothing is rotated
  bool four_times = false;        // the inner size is 4 H where it is missing
  FieldNames names;
};

// A model without blocks and the traits of its blocks, with the fields that all families have:
// sizes, heads, eps, vocabulary, positions, tied.
struct CommonFields {
  ModelConfig model;
  BlockTraits block;
};
absl::StatusOr<CommonFields> ReadCommonFields(const Fields& fields, const FamilyDefaults& defaults);

// rope_theta, rope_scaling and rope_parameters, for heads of this size. With `layer_type` the
// parameters are those under that name of rope_parameters, where it holds one object a type.
absl::StatusOr<RopeConfig> ReadRope(const Fields& fields, const FamilyDefaults& defaults,
                                    int head_dim, absl::string_view layer_type = "");

// What yarn multiplies scores by in families that say mscale_all_dim; 1 for other types.
absl::StatusOr<double> ReadYarnScoreFactor(const Fields& fields);

// layer_types: whether each layer is "sliding_attention" (true) or "full_attention". Empty without
// the field.
absl::StatusOr<std::vector<bool>> ReadLayerTypes(const Fields& fields, int num_layers);

// Windows by layer: `sliding_window` (default_window where it is missing, none where it is null) in
// the layers that layer_types calls sliding or, without that field, where `slides(layer)`.
absl::StatusOr<std::vector<int64_t>> ReadWindows(const Fields& fields, int num_layers,
                                                 int64_t default_window,
                                                 const std::function<bool(int)>& slides);

// Fields that a family's row has no place for: refuses a value other than `wanted`.
absl::Status ExpectFlag(const Fields& fields, absl::string_view name, bool wanted);
// A factor, 1 by default, as a float.
absl::StatusOr<float> ReadFactor(const Fields& fields, absl::string_view name, double fallback = 1);
// MiniCPM's factors of embeddings, of what each layer adds, and of logits.
absl::Status ReadMiniCpmScales(const Fields& fields, CommonFields* common);
// An array of num_layers small whole numbers (flags, kinds); empty where the field is missing.
absl::StatusOr<std::vector<int>> ReadByLayer(const Fields& fields, absl::string_view name,
                                             int num_layers);
// Appends the blocks of all layers: `change(layer, &block)` may change the common traits for each.
absl::StatusOr<ModelConfig> BuildLayers(
    CommonFields common, const std::function<void(int, BlockTraits*)>& change = nullptr);
// Layer norm for all norms of the model: with weights, and with biases or not.
void UseLayerNorm(bool bias, CommonFields* common);

// The activation that the field names (silu, gelu, gelu_pytorch_tanh, relu, relu2, ...).
absl::StatusOr<ops::Activation> ReadActivation(const Fields& fields, absl::string_view name,
                                               absl::string_view fallback);
// A number that may be null for "none" (0), where a missing field means `fallback`.
absl::StatusOr<double> ReadNullableNumber(const Fields& fields, absl::string_view name,
                                          double fallback, double low, double high);
// The number of experts of each layer, bounded so that the list of all tensors stays small.
absl::StatusOr<int> ReadNumExperts(const Fields& fields, absl::string_view name,
                                   std::optional<int64_t> fallback, int num_layers);
// Refuses another activation than silu.
absl::Status ExpectSilu(const Fields& fields);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_FAMILY_FIELDS_H_
