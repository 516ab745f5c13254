// Writes a checkpoint with random weights in Hugging Face's layout, of any shape and with as many
// layers as asked for: to test loading, memory and speed at real size. One shard for each layer.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "common/object_store/object_store.h"
#include "common/safetensors/safetensors.h"
#include "tests/bench/bench_support.h"

namespace uniquanf::bench {
namespace {

struct Wanted {
  std::string name;
  std::vector<int64_t> shape;
  float center, deviation;
};

// Normal bf16 values around `center`, in pieces; a pattern of some millions repeats.
class Values {
 public:
  explicit Values(uint64_t seed) {
    std::mt19937_64 generator(seed);
    std::normal_distribution<float> normal;
    pattern_.resize(4000037);  // prime, so that rows do not repeat
    for (float& value : pattern_) value = normal(generator);
  }
  void Append(SafetensorsWriter* writer, const Wanted& tensor) {
    int64_t count = 1;
    for (int64_t dim : tensor.shape) count *= dim;
    std::vector<uint16_t> piece;
    for (int64_t done = 0; done < count; done += static_cast<int64_t>(piece.size())) {
      piece.resize(std::min<int64_t>(count - done, 1 << 22));
      for (uint16_t& value : piece) {
        value = FloatToBfloat16(tensor.center + tensor.deviation * pattern_[next_]);
        next_ = next_ + 1 == pattern_.size() ? 0 : next_ + 1;
      }
      Check(writer->Append(tensor.name, piece.data(), piece.size() * sizeof(uint16_t)));
    }
  }

 private:
  std::vector<float> pattern_;
  size_t next_ = 0;
};

void WriteShard(ObjectStore* store, const std::string& key, const std::vector<Wanted>& tensors,
                Values* values, nlohmann::json* index) {
  std::vector<SafetensorsWriter::Declaration> declarations;
  for (const Wanted& tensor : tensors) {
    declarations.push_back({tensor.name, SafetensorsDType::kBF16, tensor.shape});
    (*index)["weight_map"][tensor.name] = key;
  }
  std::unique_ptr<ObjectWriter> out = Take(store->NewWriter(key, {}));
  std::unique_ptr<SafetensorsWriter> writer =
      Take(SafetensorsWriter::Create(out.get(), declarations, {{"format", "pt"}}));
  for (const Wanted& tensor : tensors) values->Append(writer.get(), tensor);
  Check(writer->Finish());
  Check(out->Commit());
}

void WriteTokens(ObjectStore* store, int64_t sequences, int64_t seq_len, int64_t vocabulary) {
  std::mt19937_64 generator(7);
  std::vector<int32_t> ids(sequences * seq_len);
  for (int32_t& id : ids) id = static_cast<int32_t>(generator() % vocabulary);
  std::unique_ptr<ObjectWriter> out = Take(store->NewWriter("tokens.safetensors", {}));
  std::unique_ptr<SafetensorsWriter> writer = Take(SafetensorsWriter::Create(
      out.get(), {{"input_ids", SafetensorsDType::kI32, {sequences, seq_len}}}, {}));
  Check(writer->Append("input_ids", ids.data(), ids.size() * sizeof(int32_t)));
  Check(writer->Finish());
  Check(out->Commit());
}

int Main(int argc, char** argv) {
  std::map<std::string, std::string> known = CommonFlags();
  known.erase("device");
  known.erase("act");
  known["out"] = "folder to write (needed)";
  known["layers"] = "decoder layers (4)";
  known["vocab"] = "vocabulary (4096)";
  known["sequences"] = "calibration sequences in tokens.safetensors (128)";
  known["seq_len"] = "tokens in each (2048)";
  known["seed"] = "of the weights (1)";
  const Flags flags(argc, argv, "Writes a checkpoint with random weights.", known);
  const std::string out = flags.Text("out", "");
  if (out.empty()) {
    std::fprintf(stderr, "--out=FOLDER is needed\n");
    return 2;
  }
  const BlockTraits shape = ShapeOf(flags);
  const BlockSpec block = BuildBlock(shape);
  const int64_t layers = flags.Number("layers", 4), vocabulary = flags.Number("vocab", 4096);
  std::shared_ptr<ObjectStore> store = Take(OpenObjectStore(out));
  Values values(flags.Number("seed", 1));
  nlohmann::json index = {{"metadata", nlohmann::json::object()}};
  for (int64_t layer = 0; layer < layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    std::vector<Wanted> tensors;
    for (int l = 0; l < block.num_linears(); ++l) {
      tensors.push_back({prefix + block.linear(l).stored.name, block.linear(l).shape, 0, 0.02f});
    }
    for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) {
      tensors.push_back({prefix + norm + ".weight", {block.hidden_size}, 1, 0.05f});
    }
    char key[64];
    std::snprintf(key, sizeof(key), "model-layer-%03d.safetensors", static_cast<int>(layer));
    WriteShard(store.get(), key, tensors, &values, &index);
  }
  WriteShard(store.get(), "model-ends.safetensors",
             {{"model.embed_tokens.weight", {vocabulary, block.hidden_size}, 0, 1},
              {"model.norm.weight", {block.hidden_size}, 1, 0.05f}},
             &values, &index);
  Check(store->Write("model.safetensors.index.json", index.dump(1)));
  const nlohmann::json config = {{"architectures", {"LlamaForCausalLM"}},
                                 {"model_type", "llama"},
                                 {"hidden_act", "silu"},
                                 {"hidden_size", block.hidden_size},
                                 {"intermediate_size", shape.mlp.size},
                                 {"num_attention_heads", shape.attention.num_heads},
                                 {"num_key_value_heads", shape.attention.num_kv_heads},
                                 {"head_dim", shape.attention.head_dim},
                                 {"num_hidden_layers", layers},
                                 {"vocab_size", vocabulary},
                                 {"max_position_embeddings", 8192},
                                 {"rms_norm_eps", 1e-5},
                                 {"rope_theta", 500000.0},
                                 {"tie_word_embeddings", true},
                                 {"torch_dtype", "bfloat16"}};
  Check(store->Write("config.json", config.dump(1)));
  WriteTokens(store.get(), flags.Number("sequences", 128), flags.Number("seq_len", 2048),
              vocabulary);
  std::printf("wrote %lld layers to %s\n", static_cast<long long>(layers), out.c_str());
  return 0;
}

}  // namespace
}  // namespace uniquanf::bench

int main(int argc, char** argv) { return uniquanf::bench::Main(argc, argv); }
