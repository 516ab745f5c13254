#include "tests/support/sample_artifact.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/artifact/artifact_config.h"
#include "common/artifact/layout.h"
#include "common/base/check.h"
#include "common/base/digest.h"
#include "common/base/random.h"
#include "common/safetensors/safetensors.h"

namespace uniquanf {
namespace {

constexpr char kShard[] = "model-layer-00000.safetensors";

UnifiedLinear SampleLinear(int bits, int64_t N, int64_t K, int64_t group_size) {
  UnifiedLinear unified;
  unified.bits = bits;
  unified.num_outputs = N;
  unified.num_inputs = K;
  unified.group_size = group_size;
  uint64_t counter = 0;
  const auto next = [&] { return PhiloxAt(1, bits, counter++).v[0]; };
  for (int64_t i = 0; i < N * K; ++i) unified.codes.push_back(next() >> (32 - bits));
  for (int64_t i = 0; i < N * K / group_size * bits; ++i) {
    unified.alpha.push_back(static_cast<float>(next() % 1000) / 1000);
  }
  for (int64_t i = 0; i < N * K / group_size; ++i) {
    unified.shift.push_back(static_cast<float>(next() % 1000) / 1000 - 0.5f);
  }
  return unified;
}

// Collects what is written in memory.
class StringWriter : public ObjectWriter {
 public:
  absl::Status Append(absl::string_view data) override {
    absl::StrAppend(&bytes, data);
    return absl::OkStatus();
  }
  absl::Status Commit() override { return absl::OkStatus(); }
  std::string bytes;
};

ManifestModule Quantized(const std::string& name, const UnifiedLinear& unified) {
  ManifestModule module;
  module.name = name;
  module.num_outputs = unified.num_outputs;
  module.num_inputs = unified.num_inputs;
  module.quantized = true;
  module.bits = unified.bits;
  module.group_size = unified.group_size;
  module.weight_error = 0.0001;
  return module;
}

ManifestModule FullPrecision(const std::string& name, int64_t N, int64_t K,
                             const std::string& reason) {
  ManifestModule module;
  module.name = name;
  module.num_outputs = N;
  module.num_inputs = K;
  module.reason = reason;
  return module;
}

}  // namespace

Manifest SampleManifest() {
  Manifest manifest;
  manifest.software_version = "0.1.0";
  manifest.environment = "cpu, test";
  manifest.spec.bits = 3;
  manifest.spec.overrides.push_back({"*.o_proj", 0, -1, true});
  manifest.model = {"LlamaForCausalLM",   1,  Sha256Hex("config"),
                    Sha256Hex("tensors"), "", Sha256Hex("calibration"),
                    Sha256Hex("plan")};
  manifest.modules = {
      Quantized("model.layers.0.self_attn.q_proj", SampleLinear(3, 4, 64, 32)),
      Quantized("model.layers.0.mlp.down_proj", SampleLinear(2, 3, 40, 40)),
      FullPrecision("model.layers.0.self_attn.o_proj", 2, 4, "override *.o_proj"),
      FullPrecision("lm_head", 8, 4, "tied to the embedding"),
  };
  manifest.layers = {{0, 0.5, 0.25}};
  manifest.evaluation = ManifestEvaluation{25.2342, 28.75, 204600};
  TextProvenance text;
  text.tokenizer_sha256 = Sha256Hex("tokenizer");
  text.files = {{Sha256Hex("a"), 100, "jsonl", 7, 5, 1, 1, 4}};
  manifest.calibration_text = text;
  return manifest;
}

void WriteSampleArtifact(ObjectStore* store,
                         const std::function<void(std::map<std::string, std::string>*)>& edit,
                         const std::function<void(Manifest*)>& edit_manifest) {
  Manifest manifest = SampleManifest();
  std::vector<SafetensorsWriter::Declaration> declarations;
  std::map<std::string, std::string> bytes;
  for (const ManifestModule& module : manifest.modules) {
    if (!module.quantized) continue;
    const PackedLinear packed =
        Pack(SampleLinear(module.bits, module.num_outputs, module.num_inputs, module.group_size));
    for (const auto& declaration : PackedTensors(module.name, packed)) {
      bytes[declaration.name] = PackedTensorBytes(module.name, packed, declaration.name);
      declarations.push_back(declaration);
    }
  }
  const std::string full = "model.layers.0.self_attn.o_proj.weight";
  declarations.push_back({full, SafetensorsDType::kBF16, {2, 4}});
  bytes[full] = std::string(16, '\x3f');
  SafetensorsWriter::SortForAlignment(&declarations);

  StringWriter shard;
  auto writer = SafetensorsWriter::Create(&shard, declarations, {}).value();
  std::map<std::string, std::string> weight_map;
  uint64_t total = 0;
  for (const auto& declaration : declarations) {
    const std::string& data = bytes[declaration.name];
    UQ_CHECK(writer->Append(declaration.name, data.data(), data.size()).ok());
    weight_map[declaration.name] = kShard;
    total += data.size();
  }
  UQ_CHECK(writer->Finish().ok());

  const ArtifactConfig config =
      BuildArtifactConfig(R"({"model_type":"llama","tie_word_embeddings":true})", manifest.spec,
                          manifest.modules)
          .value();
  manifest.anybcq_omitted = config.anybcq_omitted;
  std::map<std::string, std::string> files;
  files[kShard] = shard.bytes;
  files["config.json"] = config.json;
  files["model.safetensors.index.json"] = BuildIndexJson(weight_map, total);
  files["tokenizer.json"] = "{}";
  if (edit) edit(&files);
  for (const auto& [path, data] : files) {
    UQ_CHECK(store->Write(path, data).ok());
    manifest.files.push_back({path, data.size(), Sha256Hex(data)});
  }
  manifest.attachments = {"report.html"};
  UQ_CHECK(store->Write("report.html", "<html></html>").ok());
  if (edit_manifest) edit_manifest(&manifest);
  UQ_CHECK(store->Write(kManifestKey, manifest.ToJson()).ok());
}

}  // namespace uniquanf
