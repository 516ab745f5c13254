#include "worker/export/gguf_file.h"

#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"
#include "common/safetensors/float_conversion.h"
#include "worker/export/export_file.h"

namespace uniquanf {
namespace {

constexpr int64_t kAlignment = 32;
constexpr uint32_t kTypeUint32 = 4, kTypeInt32 = 5, kTypeFloat32 = 6, kTypeBool = 7,
                   kTypeString = 8, kTypeArray = 9;
constexpr uint32_t kGgmlBf16 = 30;

template <typename T>
void Append(T value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}
void AppendString(const std::string& text, std::string* out) {
  Append<uint64_t>(text.size(), out);
  out->append(text);
}

// Numbers of config.json that the metadata needs.
struct Hyperparameters {
  std::string architecture;
  int64_t hidden = 0, intermediate = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0;
  int64_t vocab_size = 0, positions = 0;
  double eps = 0, theta = 10000;
  bool interleaved = false;  // q and k rows in the order of llama.cpp's own rotary embedding
};

absl::StatusOr<int64_t> Whole(const ConfigJson& config, const char* name) {
  const auto value = config.find(name);
  if (value == config.end() || !value->is_number_unsigned() || value->get<uint64_t>() == 0 ||
      value->get<uint64_t>() > (uint64_t{1} << 31)) {
    return InvalidInput("INVALID_MODEL_CONFIG",
                        absl::StrCat("config.json: ", name, " is no positive whole number"));
  }
  return value->get<int64_t>();
}

absl::Status NoPlace(absl::string_view what) {
  return InvalidInput("EXPORT_NOT_POSSIBLE", absl::StrCat("gguf export has no place for ", what));
}

absl::Status ReadRope(const ConfigJson& config, Hyperparameters* h) {
  const ConfigJson* rope = &config;
  for (const char* name : {"rope_parameters", "rope_scaling"}) {
    const auto nested = config.find(name);
    if (nested == config.end() || !nested->is_object()) continue;
    if (nested->contains("rope_theta")) rope = &*nested;
    for (const char* key : {"rope_type", "type"}) {
      const auto type = nested->find(key);
      if (type != nested->end() && *type != ConfigJson("default")) {
        return NoPlace(absl::StrCat("rotary scaling ", type->dump()));
      }
    }
  }
  const auto theta = rope->find("rope_theta");
  if (theta != rope->end() && theta->is_number()) h->theta = theta->get<double>();
  return absl::OkStatus();
}

absl::StatusOr<Hyperparameters> ReadConfig(const ConfigJson& config) {
  Hyperparameters h;
  const std::string model_type = config.contains("model_type") && config["model_type"].is_string()
                                     ? config["model_type"].get<std::string>()
                                     : "";
  if (model_type == "llama" || model_type == "mistral") {
    h.architecture = "llama";
    h.interleaved = true;
  } else if (model_type == "qwen2" || model_type == "qwen3") {
    h.architecture = model_type;
  } else {
    return NoPlace(absl::StrCat("model type \"", model_type, "\""));
  }
  UQ_ASSIGN_OR_RETURN(h.hidden, Whole(config, "hidden_size"));
  UQ_ASSIGN_OR_RETURN(h.intermediate, Whole(config, "intermediate_size"));
  UQ_ASSIGN_OR_RETURN(h.layers, Whole(config, "num_hidden_layers"));
  UQ_ASSIGN_OR_RETURN(h.heads, Whole(config, "num_attention_heads"));
  UQ_ASSIGN_OR_RETURN(h.vocab_size, Whole(config, "vocab_size"));
  UQ_ASSIGN_OR_RETURN(h.positions, Whole(config, "max_position_embeddings"));
  h.kv_heads = h.heads;
  if (config.contains("num_key_value_heads") && !config["num_key_value_heads"].is_null()) {
    UQ_ASSIGN_OR_RETURN(h.kv_heads, Whole(config, "num_key_value_heads"));
  }
  h.head_dim = h.hidden / h.heads;
  if (config.contains("head_dim") && !config["head_dim"].is_null()) {
    UQ_ASSIGN_OR_RETURN(h.head_dim, Whole(config, "head_dim"));
  }
  const auto eps = config.find("rms_norm_eps");
  if (eps == config.end() || !eps->is_number()) {
    return InvalidInput("INVALID_MODEL_CONFIG", "config.json: rms_norm_eps is no number");
  }
  h.eps = eps->get<double>();
  UQ_RETURN_IF_ERROR(ReadRope(config, &h));
  const bool window = config.contains("sliding_window") && config["sliding_window"].is_number() &&
                      config["sliding_window"].get<double>() < static_cast<double>(h.positions) &&
                      config.value("use_sliding_window", ConfigJson(true)) == ConfigJson(true);
  if (window) return NoPlace("a sliding window: llama.cpp attends to everything there");
  return h;
}

GgufMetadata MakeMetadata(const Hyperparameters& h, const GgufType& type) {
  GgufMetadata m;
  const std::string& a = h.architecture;
  const auto number = [&](const char* key, int64_t value) {
    m.Add(absl::StrCat(a, ".", key), static_cast<uint32_t>(value));
  };
  m.Add("general.architecture", a);
  m.Add("general.type", std::string("model"));
  m.Add("general.file_type", type.file_type);
  m.Add("general.quantization_version", uint32_t{2});
  m.Add("general.alignment", static_cast<uint32_t>(kAlignment));
  number("block_count", h.layers);
  number("context_length", h.positions);
  number("embedding_length", h.hidden);
  number("feed_forward_length", h.intermediate);
  number("attention.head_count", h.heads);
  number("attention.head_count_kv", h.kv_heads);
  number("attention.key_length", h.head_dim);
  number("attention.value_length", h.head_dim);
  number("rope.dimension_count", h.head_dim);
  number("vocab_size", h.vocab_size);
  m.Add(a + ".attention.layer_norm_rms_epsilon", static_cast<float>(h.eps));
  m.Add(a + ".rope.freq_base", static_cast<float>(h.theta));
  return m;
}

// llama.cpp's name of a Hugging Face tensor; empty when it has none.
std::string GgufName(absl::string_view name) {
  static const std::map<std::string, std::string> outer = {
      {"model.embed_tokens.weight", "token_embd.weight"},
      {"model.norm.weight", "output_norm.weight"},
      {"lm_head.weight", "output.weight"}};
  static const std::map<std::string, std::string> inner = {
      {"input_layernorm", "attn_norm"},    {"post_attention_layernorm", "ffn_norm"},
      {"self_attn.q_proj", "attn_q"},      {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},      {"self_attn.o_proj", "attn_output"},
      {"self_attn.q_norm", "attn_q_norm"}, {"self_attn.k_norm", "attn_k_norm"},
      {"mlp.gate_proj", "ffn_gate"},       {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"}};
  const auto found = outer.find(std::string(name));
  if (found != outer.end()) return found->second;
  if (!absl::ConsumePrefix(&name, "model.layers.")) return "";
  const size_t dot = name.find('.'), last = name.rfind('.');
  if (dot == absl::string_view::npos || last <= dot) return "";
  const auto part = inner.find(std::string(name.substr(dot + 1, last - dot - 1)));
  if (part == inner.end()) return "";
  return absl::StrCat("blk.", name.substr(0, dot), ".", part->second, name.substr(last));
}

// Row r of the file is row RowOf(r) of the source: inside a head, pairs (i, i + D/2) become
// neighbours.
struct RowOrder {
  int64_t head_dim = 0;  // 0: as they are
  int64_t RowOf(int64_t row) const {
    if (head_dim == 0) return row;
    const int64_t inside = row % head_dim;
    return row - inside + inside % 2 * (head_dim / 2) + inside / 2;
  }
};

RowOrder OrderOf(const Hyperparameters& h, absl::string_view name) {
  const bool turned = absl::StrContains(name, ".self_attn.q_proj.") ||
                      absl::StrContains(name, ".self_attn.k_proj.");
  return {h.interleaved && turned ? h.head_dim : 0};
}

PackedLinear Reordered(const PackedLinear& packed, const RowOrder& order) {
  if (order.head_dim == 0) return packed;
  PackedLinear result = packed;
  const int64_t N = packed.num_outputs;
  for (int64_t row = 0; row < N; ++row) {
    const int64_t from = order.RowOf(row);
    for (size_t i = row, j = from; i < packed.qweight.size(); i += N, j += N) {
      result.qweight[i] = packed.qweight[j];
    }
    for (size_t i = row, j = from; i < packed.alpha.size(); i += N, j += N) {
      result.alpha[i] = packed.alpha[j];
    }
    for (size_t i = row, j = from; i < packed.beta.size(); i += N, j += N) {
      result.beta[i] = packed.beta[j];
    }
  }
  return result;
}

// A tensor of the file.
struct Item {
  std::string source;                      // module or tensor of the artifact
  const ManifestModule* module = nullptr;  // null: as it is there
  std::string name;
  std::vector<int64_t> shape;  // as the source's, outermost first
  uint32_t type = 0;
  uint64_t size_bytes = 0;
};

class Writer {
 public:
  Writer(const ArtifactReader& reader, Hyperparameters h, const GgufType& type,
         const ExportOptions& options)
      : reader_(reader), h_(std::move(h)), type_(type), options_(options) {}

  absl::Status Collect() {
    std::map<std::string, bool> packed;
    for (const ManifestModule& module : reader_.manifest().modules) {
      if (!module.quantized) continue;
      for (const std::string& suffix : PackedSuffixes(module)) packed[module.name + suffix] = true;
      if (module.group_size % kGgufBlock != 0) {
        return NotPossible(module.name, absl::StrCat("gguf has blocks of 32 weights; groups of ",
                                                     module.group_size, " are no multiple"));
      }
      Item item;
      item.source = module.name;
      item.module = &module;
      item.shape = {module.num_outputs, module.num_inputs};
      item.type = type_.id;
      item.size_bytes = module.num_outputs * module.num_inputs / kGgufBlock * type_.block_bytes;
      UQ_RETURN_IF_ERROR(Name(module.name + ".weight", &item));
      ++num_modules_;
      items_.push_back(std::move(item));
    }
    for (const auto& [name, shard] : reader_.tensors()) {
      if (packed.count(name) != 0 || absl::EndsWith(name, "rotary_emb.inv_freq")) continue;
      UQ_ASSIGN_OR_RETURN(const TensorInfo info, shard->Find(name));
      Item item;
      item.source = name;
      item.shape = info.shape;
      UQ_RETURN_IF_ERROR(Name(name, &item));
      UQ_RETURN_IF_ERROR(PlainType(info, &item));
      items_.push_back(std::move(item));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<ExportSummary> Write(const GgufMetadata& metadata, ObjectStore* output) {
    UQ_ASSIGN_OR_RETURN(const std::unique_ptr<ObjectWriter> out,
                        output->NewWriter("model.gguf", {}));
    std::string header = "GGUF";
    Append<uint32_t>(3, &header);
    Append<uint64_t>(items_.size(), &header);
    Append<uint64_t>(metadata.count(), &header);
    header += metadata.bytes();
    uint64_t offset = 0;
    for (const Item& item : items_) {
      AppendString(item.name, &header);
      Append<uint32_t>(static_cast<uint32_t>(item.shape.size()), &header);
      for (auto dim = item.shape.rbegin(); dim != item.shape.rend(); ++dim) {
        Append<uint64_t>(static_cast<uint64_t>(*dim), &header);
      }
      Append<uint32_t>(item.type, &header);
      Append<uint64_t>(offset, &header);
      offset += Padded(item.size_bytes);
    }
    header.resize(Padded(header.size()), '\0');
    UQ_RETURN_IF_ERROR(out->Append(header));
    for (const Item& item : items_) {
      if (options_.stop.StopRequested()) {
        return absl::CancelledError("the export was cancelled");
      }
      UQ_ASSIGN_OR_RETURN(std::string bytes, BytesOfItem(item));
      bytes.resize(Padded(bytes.size()), '\0');
      UQ_RETURN_IF_ERROR(out->Append(bytes));
    }
    UQ_RETURN_IF_ERROR(out->Commit());
    summary_.num_modules = num_modules_;
    return summary_;
  }

 private:
  static uint64_t Padded(uint64_t size) {
    return (size + kAlignment - 1) / kAlignment * kAlignment;
  }

  absl::Status Name(const std::string& source, Item* item) const {
    item->name = GgufName(source);
    return item->name.empty() ? NoPlace(absl::StrCat("tensor \"", source, "\"")) : absl::OkStatus();
  }

  // Matrices keep their type, vectors become F32.
  absl::Status PlainType(const TensorInfo& info, Item* item) const {
    const bool vector = info.shape.size() == 1;
    int64_t bytes = 2;
    if (vector || info.dtype == SafetensorsDType::kF32) {
      item->type = kGgufF32.id;
      bytes = 4;
    } else if (info.dtype == SafetensorsDType::kF16) {
      item->type = kGgufF16.id;
    } else if (info.dtype == SafetensorsDType::kBF16) {
      item->type = kGgmlBf16;
    } else {
      return NoPlace(
          absl::StrCat("tensor \"", info.name, "\" of type ", SafetensorsDTypeName(info.dtype)));
    }
    item->size_bytes = static_cast<uint64_t>(info.num_elements() * bytes);
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> BytesOfItem(const Item& item) {
    const RowOrder order =
        OrderOf(h_, item.module != nullptr ? item.source + ".weight" : item.source);
    if (order.head_dim != 0 && item.shape[0] % order.head_dim != 0) {
      return InvalidInput("INVALID_MODEL_CONFIG",
                          absl::StrCat(item.source, " has ", item.shape[0],
                                       " rows, no multiple of head_dim ", order.head_dim));
    }
    if (item.module != nullptr) {
      UQ_ASSIGN_OR_RETURN(const PackedLinear packed, reader_.ReadPacked(item.source));
      Deviation deviation;
      std::string bytes = GgufBlocks(Reordered(packed, order), type_, &deviation);
      UQ_RETURN_IF_ERROR(AddDeviation(item.source, deviation, options_, &summary_));
      if (options_.progress) options_.progress(++num_done_, num_modules_);
      return bytes;
    }
    const auto& shard = reader_.tensors().at(item.source);
    UQ_ASSIGN_OR_RETURN(const TensorInfo info, shard->Find(item.source));
    std::string bytes;
    if (item.type == kGgufF32.id) {
      std::vector<float> values(info.num_elements());
      UQ_RETURN_IF_ERROR(shard->ReadFloat(info, values.data()));
      bytes = BytesOf(values);
    } else {
      UQ_ASSIGN_OR_RETURN(bytes, ReadRawTensor(*shard, item.source));
    }
    if (order.head_dim == 0) return bytes;
    const size_t row_bytes = bytes.size() / item.shape[0];
    std::string reordered;
    reordered.reserve(bytes.size());
    for (int64_t row = 0; row < item.shape[0]; ++row) {
      reordered.append(bytes, order.RowOf(row) * row_bytes, row_bytes);
    }
    return reordered;
  }

  const ArtifactReader& reader_;
  const Hyperparameters h_;
  const GgufType& type_;
  const ExportOptions& options_;
  std::vector<Item> items_;
  ExportSummary summary_;
  int num_modules_ = 0, num_done_ = 0;
};

}  // namespace

void GgufMetadata::Key(const std::string& key, uint32_t type) {
  AppendString(key, &bytes_);
  Append<uint32_t>(type, &bytes_);
  ++count_;
}
void GgufMetadata::Add(const std::string& key, uint32_t value) {
  Key(key, kTypeUint32);
  Append(value, &bytes_);
}
void GgufMetadata::Add(const std::string& key, float value) {
  Key(key, kTypeFloat32);
  Append(value, &bytes_);
}
void GgufMetadata::Add(const std::string& key, bool value) {
  Key(key, kTypeBool);
  Append<uint8_t>(value ? 1 : 0, &bytes_);
}
void GgufMetadata::Add(const std::string& key, const std::string& value) {
  Key(key, kTypeString);
  AppendString(value, &bytes_);
}
void GgufMetadata::Add(const std::string& key, const std::vector<std::string>& values) {
  Key(key, kTypeArray);
  Append<uint32_t>(kTypeString, &bytes_);
  Append<uint64_t>(values.size(), &bytes_);
  for (const std::string& value : values) AppendString(value, &bytes_);
}
void GgufMetadata::Add(const std::string& key, const std::vector<int32_t>& values) {
  Key(key, kTypeArray);
  Append<uint32_t>(kTypeInt32, &bytes_);
  Append<uint64_t>(values.size(), &bytes_);
  for (int32_t value : values) Append(value, &bytes_);
}

absl::StatusOr<ExportSummary> WriteGguf(const ArtifactReader& reader, const ConfigJson& config,
                                        const GgufType& type, ObjectStore* output,
                                        const ExportOptions& options) {
  UQ_ASSIGN_OR_RETURN(const Hyperparameters h, ReadConfig(config));
  GgufMetadata metadata = MakeMetadata(h, type);
  UQ_RETURN_IF_ERROR(AddVocabulary(reader.store().get(), config, h.vocab_size, &metadata));
  Writer writer(reader, h, type, options);
  UQ_RETURN_IF_ERROR(writer.Collect());
  return writer.Write(metadata, output);
}

}  // namespace uniquanf
