#include "tests/fault/chaos_world.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/object_store/object_store.h"
#include "tests/support/child_process.h"
#include "tests/support/mini_cluster.h"
#include "tests/support/model_fixture.h"

namespace uniquanf {
namespace {

constexpr int kNumLayers = 3;
constexpr int kVocabulary = 128;
constexpr uint64_t kSeed = 11;
constexpr absl::Duration kBatchTimeout = absl::Minutes(2);
const char* const kInputFiles[] = {"model/config.json", "model/model.safetensors",
                                   "calibration.safetensors", "evaluation.safetensors"};

// The fixture has two layers; the others are copies of its last.
FixtureModel MakeModel() {
  FixtureModel model = FixtureModel::Make("llama", kSeed);
  const std::string last = "model.layers.1.";
  for (int layer = 2; layer < kNumLayers; ++layer) {
    std::map<std::string, FixtureTensor> copies;
    for (const auto& [name, tensor] : model.tensors) {
      if (!absl::StartsWith(name, last)) continue;
      copies[absl::StrCat("model.layers.", layer, ".", name.substr(last.size()))] = tensor;
    }
    model.tensors.insert(copies.begin(), copies.end());
  }
  model.config["num_hidden_layers"] = kNumLayers;
  return model;
}

}  // namespace

ChaosWorld::ChaosWorld(const std::string& binary_dir)
    : inputs_(absl::StrCat("file://", dir_.path())) {
  MakeModel().Write(dir_.File("model"));
  WriteTokenFile(dir_.File("calibration.safetensors"),
                 {{"input_ids", RandomTokens({4, 32}, kVocabulary, kSeed + 1)}});
  WriteTokenFile(dir_.File("evaluation.safetensors"),
                 {{"valid", RandomTokens({256}, kVocabulary, kSeed + 2)}});
  for (int variant = 0; variant < kNumVariants; ++variant) {
    const std::string name = absl::StrCat("reference-", variant);
    QuantizationSpec spec = Spec(variant);
    spec.output_uri = dir_.File(name);
    WriteFile(dir_.File("spec.json"), spec.ToJson());
    ChildProcess batch(absl::StrCat(binary_dir, "/uniquanf-batch"),
                       {"quantize", absl::StrCat("--spec=", dir_.File("spec.json"))}, {},
                       dir_.File("log"));
    if (batch.WaitForExit(kBatchTimeout) != ExitStatus{0, 0}) {
      std::fprintf(stderr, "the undisturbed run failed:\n%s\n", batch.Log().c_str());
      std::abort();
    }
    references_[variant] = ArtifactBytes(dir_.File(name));
  }
}

QuantizationSpec ChaosWorld::Spec(int variant) const {
  QuantizationSpec spec;
  spec.model_uri = absl::StrCat(inputs_, "/model");
  spec.calibration_uri = absl::StrCat(inputs_, "/calibration.safetensors");
  spec.evaluation_uri = absl::StrCat(inputs_, "/evaluation.safetensors");
  spec.evaluation_window = 64;
  spec.bits = 3;
  spec.num_samples = 4;
  spec.sequence_length = 32;
  spec.epochs = 40;
  spec.input_prob = variant == 0 ? 0.5 : 0;
  return spec;
}

void ChaosWorld::MoveInputsTo(const std::string& uri) {
  const auto store = OpenObjectStore(uri);
  UQ_CHECK(store.ok());
  for (const char* file : kInputFiles) {
    const absl::Status status = (*store)->Write(file, ReadFile(dir_.File(file)));
    if (!status.ok()) {
      std::fprintf(stderr, "cannot write %s/%s: %s\n", uri.c_str(), file,
                   status.ToString().c_str());
      std::abort();
    }
  }
  inputs_ = uri;
}

}  // namespace uniquanf
