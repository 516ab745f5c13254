// What a job is given and hands on: damaged or contradicting originals, files beside the weights,
// places that cannot be written, and models that change while a job runs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/artifact/artifact_reader.h"
#include "common/artifact/finite.h"
#include "tests/unit/worker/task/task_fixture.h"
#include "worker/export/export.h"
#include "worker/model/checkpoint.h"
#include "worker/task/content_store.h"
#include "worker/task/plan.h"
#include "worker/task/prepare_checks.h"

namespace uniquanf {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class WhatGoesInTest : public TaskTest {
 protected:
  void WriteModel() { model_.Write(spec_.model_uri); }
  void AddFile(const std::string& name, const std::string& text) {
    WriteFile(spec_.model_uri + "/" + name, text);
  }
  std::string ModelFile(const std::string& name) const { return spec_.model_uri + "/" + name; }
  std::shared_ptr<ObjectStore> Output() const { return *OpenObjectStore(spec_.output_uri); }
};

TEST_F(WhatGoesInTest, NanOutsideTheLayersIsFoundBeforeAnyLayer) {
  for (const char* name : {"model.norm.weight", "model.embed_tokens.weight"}) {
    model_ = FixtureModel::Make("llama", 7);
    model_.tensors[name].values.back() = kNan;
    WriteModel();
    const auto last = model_.tensors[name].values.size() - 1;
    EXPECT_THAT(RunPrepare(spec_, env_),
                FailsWith(kInvalid, "WEIGHT_NOT_FINITE",
                          AllOf(HasSubstr(name), HasSubstr(absl::StrCat("element ", last)))));
  }
}

// A tensor that nothing reads is copied, and checked while it is.
TEST_F(WhatGoesInTest, NanInACopiedTensorOfALayerIsFound) {
  model_.config["num_nextn_predict_layers"] = 1;
  FixtureTensor extra;
  extra.shape = {4};
  extra.values = {1, 2, -std::numeric_limits<float>::infinity(), 4};
  model_.tensors["mtp.fc.weight"] = extra;
  WriteModel();
  EXPECT_THAT(RunPrepare(spec_, env_),
              FailsWith(kInvalid, "WEIGHT_NOT_FINITE", HasSubstr("mtp.fc.weight")));
  // What follows from the config may hold infinities, as causal masks do.
  model_.tensors.erase("mtp.fc.weight");
  model_.tensors["model.layers.0.self_attn.rotary_emb.cos_cached"] = extra;
  WriteModel();
  EXPECT_OK(RunJob());
  EXPECT_THAT(VerifyArtifact(Output(), {})->problems, testing::IsEmpty());
}

TEST_F(WhatGoesInTest, EveryTypeOfFloatIsSearched) {
  const auto bytes = [](auto value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  EXPECT_EQ(FindNotFinite(SafetensorsDType::kF32, bytes(1.0f) + bytes(kNan)), 1);
  EXPECT_EQ(FindNotFinite(SafetensorsDType::kF32, bytes(3.4e38f)), std::nullopt);
  EXPECT_EQ(FindNotFinite(SafetensorsDType::kF64, bytes(1.0) + bytes(-HUGE_VAL)), 1);
  EXPECT_EQ(FindNotFinite(SafetensorsDType::kBF16, bytes(uint16_t{0xFF80})), 0);
  EXPECT_EQ(FindNotFinite(SafetensorsDType::kBF16, bytes(uint16_t{0x7F7F})), std::nullopt);
  EXPECT_EQ(FindNotFinite(SafetensorsDType::kF16, bytes(uint16_t{0x7C01})), 0);
  EXPECT_EQ(FindNotFinite(SafetensorsDType::kF16, bytes(uint16_t{0x7BFF})), std::nullopt);
  EXPECT_EQ(FindNotFinite(SafetensorsDType::kI32, bytes(-1)), std::nullopt);
}

TEST_F(WhatGoesInTest, AModelThatChangesBetweenLayersIsNoticed) {
  WriteModel();
  ASSERT_OK_AND_ASSIGN(const PrepareOutcome prepared, RunPrepare(spec_, env_));
  ASSERT_OK_AND_ASSIGN(const LayerOutcome first,
                       RunLayer(spec_, prepared.plan_sha256, 0, {}, env_));
  EXPECT_OK(CheckFinishedLayer(spec_, prepared.plan_sha256, {0, 0}, first.result_sha256, env_));
  FixtureTensor& up = model_.tensors["model.layers.0.mlp.up_proj.weight"];
  for (float& value : up.values) value = -value;
  WriteModel();
  const auto changed =
      FailsWith(absl::StatusCode::kFailedPrecondition, "MODEL_CHANGED",
                AllOf(HasSubstr("layer 0"), HasSubstr("model.safetensors"), HasSubstr("--fresh")));
  EXPECT_THAT(CheckFinishedLayer(spec_, prepared.plan_sha256, {0, 0}, first.result_sha256, env_),
              changed);
  // A worker that takes the next layer over from another one.
  cache_->Clear();
  EXPECT_THAT(RunLayer(spec_, prepared.plan_sha256, 1, {first.result_sha256}, env_), changed);
  // And the last step, where no layer read the one that changed again.
  spec_.input_prob = 0;
  spec_.output_uri += "2";
  ASSERT_OK_AND_ASSIGN(const PrepareOutcome again, RunPrepare(spec_, env_));
  std::vector<std::string> results;
  for (const int layer : {0, 1}) {
    ASSERT_OK_AND_ASSIGN(const LayerOutcome outcome,
                         RunLayer(spec_, again.plan_sha256, layer, {}, env_));
    results.push_back(outcome.result_sha256);
  }
  for (float& value : up.values) value = -value;
  WriteModel();
  EXPECT_THAT(RunFinalize(spec_, again.plan_sha256, results, env_), changed);
  // Another copy of the same bytes is the same model.
  for (float& value : up.values) value = -value;
  WriteModel();
  EXPECT_OK(RunFinalize(spec_, again.plan_sha256, results, env_));
}

TEST_F(WhatGoesInTest, SmallFilesGoAlong) {
  model_.config["auto_map"] = {{"AutoConfig", "configuration_my.MyConfig"}};
  WriteModel();
  for (const char* name : {"configuration_my.py", "modeling_my.py", "LICENSE.txt", "LICENSE.md",
                           "README.md", "notes.txt", "chat_template.jinja"}) {
    AddFile(name, absl::StrCat("text of ", name));
  }
  AddFile("pytorch_model.bin", "weights");
  AddFile("hf_quant_config.json", "{}");
  AddFile(".gitattributes", "hidden");
  AddFile("manifest.json", "{}");
  std::filesystem::create_directories(ModelFile("onnx"));
  AddFile("onnx/model.onnx", "weights");
  AddFile("large.txt", "");
  std::filesystem::resize_file(ModelFile("large.txt"), 17 << 20);
  ASSERT_OK(RunJob());
  for (const char* name : {"configuration_my.py", "modeling_my.py", "LICENSE.txt", "LICENSE.md",
                           "notes.txt", "chat_template.jinja"}) {
    EXPECT_EQ(*Output()->Read(name, 1000), absl::StrCat("text of ", name));
  }
  EXPECT_EQ(*Output()->Read("SOURCE_README.md", 1000), "text of README.md");
  EXPECT_FALSE(Output()->Stat("README.md").ok());
  EXPECT_FALSE(Output()->Stat(".gitattributes").ok());
  ASSERT_OK_AND_ASSIGN(const Manifest manifest, ReadManifest(Output().get()));
  EXPECT_THAT(manifest.origin.left_out, ElementsAre("hf_quant_config.json", "large.txt",
                                                    "manifest.json", "onnx/", "pytorch_model.bin"));
  EXPECT_THAT(VerifyArtifact(Output(), {})->problems, testing::IsEmpty());
  const std::string exported = dir_.path() + "/exported";
  ASSERT_OK(ExportArtifact(Output(), exported, ExportOptions()));
  EXPECT_TRUE(std::filesystem::exists(exported + "/modeling_my.py"));
}

TEST_F(WhatGoesInTest, AHeadThatShouldBeTheEmbeddingIsComparedWithIt) {
  model_.tensors["lm_head.weight"] = model_.tensors["model.embed_tokens.weight"];
  WriteModel();
  ASSERT_OK(RunJob());
  ASSERT_OK_AND_ASSIGN(const auto artifact, ArtifactReader::Open(Output()));
  EXPECT_EQ(artifact->tensors().count("lm_head.weight"), 0u);

  model_.tensors["lm_head.weight"].values[1000] += 0.5f;
  WriteModel();
  EXPECT_THAT(RunPrepare(spec_, env_),
              FailsWith(kInvalid, "TIED_HEAD_DIFFERS",
                        AllOf(HasSubstr("lm_head.weight"), HasSubstr("model.embed_tokens.weight"),
                              HasSubstr("tie_word_embeddings"))));
}

TEST_F(WhatGoesInTest, PlacesThatCannotBeWrittenAreFoundFirst) {
  WriteModel();
  std::ofstream(dir_.path() + "/afile") << "text";
  spec_.output_uri = dir_.path() + "/afile";
  EXPECT_FALSE(RunPrepare(spec_, env_).ok());
  spec_.output_uri = dir_.path() + "/afile/out";
  EXPECT_FALSE(RunPrepare(spec_, env_).ok());
  // What prepare tries it takes back, directories too.
  spec_.output_uri = dir_.path() + "/new/place/out";
  EXPECT_OK(RunPrepare(spec_, env_));
  EXPECT_FALSE(std::filesystem::exists(dir_.path() + "/new"));
  std::filesystem::create_directory(dir_.path() + "/empty");
  spec_.output_uri = dir_.path() + "/empty";
  EXPECT_OK(RunPrepare(spec_, env_));
  EXPECT_TRUE(std::filesystem::is_empty(dir_.path() + "/empty"));
}

TEST_F(WhatGoesInTest, FilesThatAreTooLargeToCopyAreFoundFirst) {
  WriteModel();
  AddFile("tokenizer.json", "");
  std::filesystem::resize_file(ModelFile("tokenizer.json"), (256 << 20) + 1);
  EXPECT_THAT(RunPrepare(spec_, env_),
              FailsWith(kInvalid, "FILE_TOO_LARGE", HasSubstr("tokenizer.json")));
}

TEST_F(WhatGoesInTest, RoomIsNeededForTheWholeArtifact) {
  const uint64_t free = std::filesystem::space(dir_.path()).available;
  const std::string output = dir_.path() + "/not/there/yet";
  EXPECT_OK(CheckSpace(output, env_.work_uri, free / 8));
  EXPECT_THAT(CheckSpace(output, "s3://bucket/work", free * 2),
              FailsWith(absl::StatusCode::kResourceExhausted, "STORAGE_FULL",
                        AllOf(HasSubstr(dir_.path()), HasSubstr("make room"))));
  EXPECT_FALSE(CheckSpace(output, "file://" + dir_.path(), free / 4 * 3).ok());
  EXPECT_FALSE(CheckSpace("s3://bucket/out", "file://" + dir_.path(), free * 2).ok());
  EXPECT_OK(CheckSpace("s3://bucket/out", "s3://bucket/work", UINT64_MAX));

  WriteModel();
  ASSERT_OK(RunJob());
  ASSERT_OK_AND_ASSIGN(const auto source,
                       Checkpoint::Open(*OpenObjectStore(spec_.model_uri), false));
  uint64_t written = 0;
  ASSERT_OK_AND_ASSIGN(const Manifest manifest, ReadManifest(Output().get()));
  for (const auto& file : manifest.files) written += file.size_bytes;
  const uint64_t planned = ArtifactBytes(spec_, *source);
  EXPECT_GT(planned, written / 2);
  EXPECT_LT(planned, written * 2);
}

TEST_F(WhatGoesInTest, OverridesOfWhatIsNeverQuantized) {
  WriteModel();
  const auto override = [&](const char* pattern, int bits) {
    spec_.overrides.resize(1);
    spec_.overrides[0] = ModuleOverride();
    spec_.overrides[0].pattern = pattern;
    spec_.overrides[0].bits = bits;
    spec_.overrides[0].full_precision = bits == 0;
  };
  for (const char* pattern : {"lm_head", "model.embed_tokens", "*norm*"}) {
    override(pattern, 0);
    EXPECT_OK(RunPrepare(spec_, env_));
    override(pattern, 4);
    EXPECT_THAT(RunPrepare(spec_, env_),
                FailsWith(kInvalid, "NOT_QUANTIZABLE",
                          AllOf(HasSubstr("stays in full precision"), HasSubstr("=full"))));
  }
  override("model.layers.*.nothing", 0);
  EXPECT_THAT(RunPrepare(spec_, env_), FailsWith(kInvalid, "OVERRIDE_MATCHES_NOTHING"));
}

TEST_F(WhatGoesInTest, OverflowOfTheOriginalIsNotBlamedOnTheSettings) {
  for (float& value : model_.tensors["model.layers.1.mlp.down_proj.weight"].values) {
    value *= 0x1p125f;
  }
  for (float& value : model_.tensors["model.layers.1.mlp.up_proj.weight"].values) value *= 64;
  WriteModel();
  EXPECT_THAT(RunJob(), FailsWith(kInvalid, "ACTIVATIONS_NOT_FINITE",
                                  AllOf(HasSubstr("layer 1 of the original gives"),
                                        HasSubstr("calibration sequence 0"),
                                        Not(HasSubstr("learning rate")))));
}

TEST_F(WhatGoesInTest, ConfigsOfPythonGoThroughToTheArtifact) {
  WriteModel();
  std::string config = model_.config.dump();
  config.insert(1, R"("some_limit": [0.0, Infinity], "other": NaN, )");
  AddFile("config.json", config);
  ASSERT_OK(RunJob());
  EXPECT_THAT(VerifyArtifact(Output(), {})->problems, testing::IsEmpty());
}

TEST_F(WhatGoesInTest, ExportsSetEveryFieldThatNamesTheType) {
  model_.config["torch_dtype"] = "float16";
  model_.config["dtype"] = "float16";
  model_.config["text_config"] = {{"dtype", "float16"}};
  WriteModel();
  ASSERT_OK(RunJob());
  const std::string exported = dir_.path() + "/exported";
  ASSERT_OK(ExportArtifact(Output(), exported, ExportOptions()));
  const auto config =
      nlohmann::json::parse(*(*OpenObjectStore(exported))->Read("config.json", 1 << 20));
  EXPECT_EQ(config["torch_dtype"], "bfloat16");
  EXPECT_EQ(config["dtype"], "bfloat16");
  EXPECT_EQ(config["text_config"]["dtype"], "bfloat16");
}

TEST_F(WhatGoesInTest, AnExportChecksTheArtifact) {
  WriteModel();
  ASSERT_OK(RunJob());
  EXPECT_OK(CheckArtifactFiles(Output().get()));
  const std::string shard = spec_.output_uri + "/model-00002-of-00003.safetensors";
  std::filesystem::permissions(shard, std::filesystem::perms::owner_all);
  std::fstream file(shard, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(-100, std::ios::end);
  const char byte = static_cast<char>(file.get());
  file.seekp(-100, std::ios::end);
  file.put(static_cast<char>(byte ^ 4));
  file.close();
  EXPECT_THAT(ExportArtifact(Output(), dir_.path() + "/exported", ExportOptions()),
              FailsWith(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
                        HasSubstr("model-00002-of-00003.safetensors")));
  EXPECT_FALSE(std::filesystem::exists(dir_.path() + "/exported/config.json"));
}

TEST_F(WhatGoesInTest, VerifyFindsNanInFullPrecision) {
  WriteModel();
  ASSERT_OK(RunJob());
  ASSERT_OK_AND_ASSIGN(const auto artifact, ArtifactReader::Open(Output()));
  const auto norm = artifact->tensors().at("model.norm.weight");
  const TensorInfo info = *norm->Find("model.norm.weight");
  const std::string shard = spec_.output_uri + "/" + norm->key();
  std::filesystem::permissions(shard, std::filesystem::perms::owner_all);
  std::fstream file(shard, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(info.offset));
  file.write("\xC0\x7F", 2);
  file.close();
  EXPECT_THAT(VerifyArtifact(Output(), {})->problems,
              Contains(HasSubstr("model.norm.weight: holds NaN or an infinity, element 0")));
}

}  // namespace
}  // namespace uniquanf
