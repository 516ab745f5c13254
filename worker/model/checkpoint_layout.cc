#include "worker/model/checkpoint_layout.h"

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

// What GPTQ, AWQ, compressed-tensors, bitsandbytes, FP8 and BCQ checkpoints store beside or instead
// of weights.
constexpr const char* kQuantizationSuffixes[] = {
    ".qweight",       ".qzeros",       ".scales",       ".g_idx",        ".weight_scale",
    ".weight_packed", ".weight_shape", ".input_scale",  ".absmax",       ".weight_zero_point",
    ".quant_map",     ".SCB",          ".quant_state",  ".bWeight",      ".weight_scale_inv",
    ".q_bias",        ".lookup_table", ".weight_g_idx", ".nested_absmax"};

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

}  // namespace

std::string LayerPrefix(int layer) { return absl::StrCat("model.layers.", layer, "."); }

std::string ModuleName(int layer, Linear linear) {
  return absl::StrCat(LayerPrefix(layer), LinearName(linear));
}

std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& config) {
  const int64_t hidden_size = config.blocks.front().hidden_size;
  std::vector<ExpectedTensor> expected = {
      {kEmbeddingName, {config.vocab_size, hidden_size}},
      {kFinalNormName, {hidden_size}},
  };
  if (!config.tie_word_embeddings) {
    expected.push_back({kLmHeadName, {config.vocab_size, hidden_size}});
  }
  for (int layer = 0; layer < config.num_layers; ++layer) {
    const BlockConfig& block = config.blocks[layer];
    const std::string prefix = LayerPrefix(layer);
    expected.push_back({prefix + kInputNormSuffix, {hidden_size}});
    expected.push_back({prefix + kPostNormSuffix, {hidden_size}});
    if (block.qk_norm) {
      expected.push_back({prefix + kQNormSuffix, {block.head_dim}});
      expected.push_back({prefix + kKNormSuffix, {block.head_dim}});
    }
    for (Linear linear : kAllLinears) {
      const auto [n, k] = block.LinearShape(linear);
      expected.push_back({ModuleName(layer, linear) + ".weight", {n, k}});
      if (block.HasBias(linear)) expected.push_back({ModuleName(layer, linear) + ".bias", {n}});
    }
  }
  return expected;
}

absl::Status CheckTensor(const TensorMap& tensors, const ExpectedTensor& expected) {
  auto it = tensors.find(expected.name);
  if (it == tensors.end()) {
    return InvalidInput("TENSOR_NOT_FOUND",
                        absl::StrCat("the checkpoint has no tensor ", expected.name, " ",
                                     ShapeText(expected.shape), ", which its config.json implies"));
  }
  const Checkpoint::RawTensor& tensor = it->second;
  const SafetensorsDType dtype = tensor.info.dtype;
  if (dtype != SafetensorsDType::kF32 && dtype != SafetensorsDType::kF16 &&
      dtype != SafetensorsDType::kBF16) {
    return InvalidInput("TENSOR_DTYPE",
                        absl::StrCat("tensor ", expected.name, " in ", tensor.file->key(), " is ",
                                     SafetensorsDTypeName(dtype), "; it must be F32, F16 or BF16"));
  }
  if (tensor.info.shape != expected.shape) {
    return InvalidInput("TENSOR_SHAPE",
                        absl::StrCat("tensor ", expected.name, " in ", tensor.file->key(),
                                     " has shape ", ShapeText(tensor.info.shape),
                                     "; config.json implies ", ShapeText(expected.shape)));
  }
  return absl::OkStatus();
}

absl::Status CheckNothingElse(const TensorMap& tensors,
                              const std::vector<ExpectedTensor>& expected) {
  std::set<std::string> known;
  for (const ExpectedTensor& tensor : expected) known.insert(tensor.name);
  for (const auto& [name, tensor] : tensors) {
    if (known.count(name) > 0) continue;
    for (const char* suffix : kQuantizationSuffixes) {
      if (!absl::EndsWith(name, suffix)) continue;
      return InvalidInput("UNEXPECTED_TENSOR",
                          absl::StrCat("tensor ", name, " in ", tensor.file->key(),
                                       " belongs to a quantized model; give the original one"));
    }
    // Old checkpoints store the rotary frequencies, which follow from the config.
    if (!absl::StartsWith(name, "model.layers.") || absl::EndsWith(name, ".rotary_emb.inv_freq")) {
      continue;
    }
    return InvalidInput(
        "UNEXPECTED_TENSOR",
        absl::StrCat("tensor ", name, " in ", tensor.file->key(),
                     " is inside a layer, but config.json does not account for it; using the model "
                     "without it would change its outputs"));
  }
  return absl::OkStatus();
}

}  // namespace uniquanf
