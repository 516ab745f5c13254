#include "worker/model/checkpoint_layout.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

// What GPTQ, AWQ, compressed-tensors, bitsandbytes, FP8 and BCQ checkpoints store beside or instead
// of weights.
constexpr const char* kQuantizationSuffixes[] = {".qweight",
                                                 ".qzeros",
                                                 ".scales",
                                                 ".g_idx",
                                                 ".weight_scale",
                                                 ".weight_packed",
                                                 ".weight_shape",
                                                 ".input_scale",
                                                 ".absmax",
                                                 ".weight_zero_point",
                                                 ".quant_map",
                                                 ".SCB",
                                                 ".quant_state",
                                                 ".bWeight",
                                                 ".weight_scale_inv",
                                                 ".q_bias",
                                                 ".lookup_table",
                                                 ".weight_g_idx",
                                                 ".nested_absmax",
                                                 ".weight_scale_2",
                                                 ".weight_global_scale",
                                                 "_proj_scale_inv",
                                                 "_proj_scales_inv",
                                                 "_proj_blocks",
                                                 "_proj_scales"};

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

}  // namespace

bool IsCopiedTensor(const ModelConfig& config, absl::string_view name) {
  // Old checkpoints store what follows from the config: rotary frequencies and causal masks.
  if (absl::StrContains(name, ".rotary_emb.")) return true;
  for (const char* suffix :
       {".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias"}) {
    if (absl::EndsWith(name, suffix)) return true;
  }
  for (int layer = config.num_layers; layer < config.num_layers + config.num_extra_layers;
       ++layer) {
    if (absl::StartsWith(name, config.LayerPrefix(layer))) return true;
  }
  const int layer = config.LayerOf(name);
  if (layer < 0) return false;
  name.remove_prefix(config.LayerPrefix(layer).size());
  return std::any_of(config.copied_parts.begin(), config.copied_parts.end(),
                     [&](const std::string& part) { return absl::StartsWith(name, part); });
}

std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& config) {
  const ModelEnds& ends = config.ends;
  std::vector<ExpectedTensor> expected;
  const auto expect = [&](const std::string& module, const char* part, std::vector<int64_t> shape) {
    if (!module.empty()) expected.push_back({module + part, std::move(shape)});
  };
  const auto expect_norm = [&](const std::string& module, const NormTraits& kind) {
    if (kind.weight) expect(module, ".weight", {config.hidden_size});
    if (kind.bias) expect(module, ".bias", {config.hidden_size});
  };
  expect(ends.embedding, ".weight", {config.vocab_size, config.hidden_size});
  expect(ends.positions, ".weight", {ends.num_positions, config.hidden_size});
  expect_norm(ends.embedding_norm, ends.embedding_norm_kind);
  expect_norm(ends.final_norm, ends.final_norm_kind);
  if (!ends.tied) expect(ends.head, ".weight", {config.vocab_size, config.hidden_size});
  if (ends.head_bias) expect(ends.head, ".bias", {config.vocab_size});
  for (int layer = 0; layer < config.num_layers; ++layer) {
    const std::string prefix = config.LayerPrefix(layer);
    std::set<std::string> listed;  // several tensors may be parts of one stored tensor
    for (const TensorSpec& tensor : config.blocks[layer].tensors) {
      if (!tensor.stored.constant.empty()) continue;
      if (!listed.insert(tensor.stored.name).second) continue;
      expected.push_back({prefix + tensor.stored.name, tensor.stored.shape});
    }
  }
  return expected;
}

std::set<std::string> ReplacedTensors(const ModelConfig& config, int layer,
                                      const std::set<std::string>& quantized) {
  std::set<std::string> replaced;
  const std::string prefix = config.LayerPrefix(layer);
  const BlockSpec& spec = config.blocks[layer];
  for (const TensorSpec& tensor : spec.tensors) {
    if (tensor.role == TensorRole::kVector) continue;
    if (!tensor.stored.IsPlain() || quantized.count(prefix + tensor.module) > 0) {
      replaced.insert(prefix + tensor.stored.name);
    }
  }
  return replaced;
}

std::string OwnTensorName(const std::string& layer_prefix, const TensorSpec& tensor) {
  return absl::StrCat(layer_prefix, tensor.module, ".weight");
}

namespace {

// The tensor whose name has most in common with this one's end, counted in whole parts; "" when
// that is not even the last two.
std::string NearestTensor(const TensorMap& tensors, const std::string& wanted) {
  std::string nearest;
  int64_t most = 1;
  for (const auto& [name, tensor] : tensors) {
    int64_t parts = 0;
    size_t i = 0;
    while (i < wanted.size() && i < name.size() &&
           wanted[wanted.size() - 1 - i] == name[name.size() - 1 - i]) {
      if (wanted[wanted.size() - 1 - i] == '.') ++parts;
      ++i;
    }
    if (i == wanted.size() || i == name.size()) ++parts;
    if (parts > most) {
      most = parts;
      nearest = name;
    }
  }
  return nearest;
}

absl::Status NotFoundTensor(const CheckpointFiles& files, const ExpectedTensor& expected) {
  const auto absent = files.absent.find(expected.name);
  const auto unlisted = files.unlisted.find(expected.name);
  std::string message;
  if (absent != files.absent.end()) {
    message = absl::StrCat("tensor ", expected.name, " is not in ", absent->second,
                           ", where model.safetensors.index.json says it is; fetch both again");
  } else if (unlisted != files.unlisted.end()) {
    message = absl::StrCat("tensor ", expected.name, " lies in ", unlisted->second,
                           ", but model.safetensors.index.json does not list it; add it there");
  } else {
    message = absl::StrCat("the checkpoint has no tensor ", expected.name, " ",
                           ShapeText(expected.shape), ", which its config.json implies");
    const std::string nearest = NearestTensor(files.tensors, expected.name);
    if (!nearest.empty()) {
      absl::StrAppend(&message, "; the nearest that it has is ", nearest.substr(0, 200),
                      ": does config.json belong to it, and are its names those of Hugging Face?");
    }
  }
  return InvalidInput("TENSOR_NOT_FOUND", message);
}

}  // namespace

absl::Status CheckTensor(const CheckpointFiles& files, const ExpectedTensor& expected) {
  auto it = files.tensors.find(expected.name);
  if (it == files.tensors.end()) return NotFoundTensor(files, expected);
  const SourceTensor& tensor = it->second;
  const SafetensorsDType dtype = tensor.info.dtype;
  if (!IsFullPrecision(dtype)) {
    const bool is_fp8 = absl::StartsWith(SafetensorsDTypeName(dtype), "F8_");
    return InvalidInput(
        "TENSOR_DTYPE",
        absl::StrCat("tensor ", expected.name, " in ", tensor.file->key(), " is ",
                     SafetensorsDTypeName(dtype), "; it must be F32, F16 or BF16",
                     is_fp8 ? absl::StrCat(", or have its scales beside it (", expected.name,
                                           "_scale_inv or _scale): the model is "
                                           "quantized; give its original, or one with scales")
                            : ""));
  }
  if (tensor.info.shape != expected.shape) {
    return InvalidInput("TENSOR_SHAPE",
                        absl::StrCat("tensor ", expected.name, " in ", tensor.file->key(),
                                     " has shape ", ShapeText(tensor.info.shape),
                                     "; config.json implies ", ShapeText(expected.shape)));
  }
  return absl::OkStatus();
}

absl::Status CheckNothingElse(const CheckpointFiles& files, const ModelConfig& config,
                              const std::vector<ExpectedTensor>& expected) {
  std::set<std::string> known;
  for (const ExpectedTensor& tensor : expected) known.insert(tensor.name);
  std::map<std::string, std::string> found = files.unlisted;
  for (const auto& [name, tensor] : files.tensors) found[name] = tensor.file->key();
  for (const auto& [name, file] : found) {
    if (known.count(name) > 0) continue;
    for (const char* suffix : kQuantizationSuffixes) {
      if (!absl::EndsWith(name, suffix)) continue;
      return InvalidInput(
          "UNEXPECTED_TENSOR",
          absl::StrCat("tensor ", name, " in ", file,
                       " belongs to a quantized model, and neither config.json nor another tensor "
                       "says how to read it; give the original one"));
    }
    if (!absl::StartsWith(name, config.layers) || IsCopiedTensor(config, name)) continue;
    return InvalidInput(
        "UNEXPECTED_TENSOR",
        absl::StrCat("tensor ", name, " in ", file,
                     " is inside a layer, but config.json does not account for it; using the model "
                     "without it would change its outputs. If it means nothing, remove it"));
  }
  return absl::OkStatus();
}

}  // namespace uniquanf
