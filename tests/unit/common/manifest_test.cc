// The manifest: canonical bytes, and untrusted ones.
#include "common/artifact/manifest.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_replace.h"
#include "common/base/digest.h"
#include "tests/support/sample_artifact.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace uniquanf {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

Manifest WithFiles() {
  Manifest manifest = SampleManifest();
  manifest.files = {{"b.safetensors", 18446744073709551615u, Sha256Hex("b")},
                    {"a.json", 0, Sha256Hex("a")}};
  manifest.attachments = {"run.json", "report.html"};
  return manifest;
}

TEST(ManifestTest, ReadsBackAndSorts) {
  const std::string json = WithFiles().ToJson();
  ASSERT_OK_AND_ASSIGN(const Manifest read, Manifest::FromJson(json));
  EXPECT_EQ(read.ToJson(), json);
  EXPECT_EQ(read.files[0].path, "a.json");
  EXPECT_EQ(read.files[1].size_bytes, 18446744073709551615u);
  EXPECT_EQ(read.attachments[0], "report.html");
  EXPECT_EQ(read.spec.ToJson(), WithFiles().spec.ToJson());
  ASSERT_NE(read.FindModule("lm_head"), nullptr);
  EXPECT_EQ(read.FindModule("lm_head")->reason, "tied to the embedding");
  EXPECT_EQ(read.FindModule("none"), nullptr);
  EXPECT_EQ(read.evaluation->num_tokens, 204600);
}

TEST(ManifestTest, WritesTheFormatsOrder) {
  EXPECT_THAT(WithFiles().ToJson(),
              StartsWith("{\n \"format\": \"uniquanf-artifact\",\n \"version\": 2,\n"
                         " \"software_version\": \"0.1.0\",\n \"environment\": \"cpu, test\",\n"
                         " \"spec\": {\n  \"model_uri\": \"\","));
}

// Of an artifact that version 0.1.0 wrote.
TEST(ManifestTest, Version1ReadsAsItWasMeant) {
  std::ifstream file(UNIQUANF_SOURCE_DIR "/tests/unit/common/manifest_version_1.json");
  const std::string old((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  ASSERT_OK_AND_ASSIGN(const Manifest read, Manifest::FromJson(old));
  EXPECT_EQ(read.spec.bits, 3);
  EXPECT_EQ(read.spec.binary_learning_rate, 5e-4);
  EXPECT_EQ(read.spec.num_samples, 16);
  EXPECT_EQ(read.modules.size(), 29u);
  EXPECT_EQ(read.layers.size(), 4u);
  EXPECT_EQ(read.FindModule("model.layers.0.self_attn.q_proj")->weight_error,
            0.00020316046742860935);
  // What is written anew says the same.
  const nlohmann::json before = nlohmann::json::parse(old);
  // Nobody could choose then.
  EXPECT_EQ(read.spec.initialization, Initialization::kPlain);
  nlohmann::json after = nlohmann::json::parse(read.ToJson());
  EXPECT_EQ(after["version"], 2);
  after["version"] = 1;
  EXPECT_EQ(after["spec"]["initialization"], "plain");
  after["spec"].erase("initialization");
  EXPECT_EQ(after, before);
}

TEST(ManifestTest, AverageBitsCountScaleFactorsAndShifts) {
  Manifest manifest;
  ManifestModule module;
  module.quantized = true;
  module.num_outputs = 10;
  module.num_inputs = 128;
  module.bits = 3;
  module.group_size = 64;
  manifest.modules = {module};
  EXPECT_DOUBLE_EQ(manifest.AverageBits(), 3 + 4 * 16.0 / 64);
  EXPECT_EQ(Manifest().AverageBits(), 0);
}

TEST(ManifestTest, CollapsedModelsReadBack) {
  Manifest manifest = WithFiles();
  manifest.evaluation->perplexity_after = INFINITY;
  manifest.layers[0].final_loss = NAN;
  const std::string json = manifest.ToJson();
  ASSERT_OK_AND_ASSIGN(const Manifest read, Manifest::FromJson(json));
  EXPECT_TRUE(std::isnan(read.evaluation->perplexity_after));
  EXPECT_EQ(read.ToJson(), json);
}

TEST(ManifestTest, RefusesWhatIsNotTheFormat) {
  const std::string good = WithFiles().ToJson();
  ASSERT_OK(Manifest::FromJson(good));
  const auto refuse = [&](const std::string& from, const std::string& to, const char* message) {
    const std::string bad = absl::StrReplaceAll(good, {{from, to}});
    ASSERT_NE(bad, good) << from;
    EXPECT_THAT(Manifest::FromJson(bad),
                FailsWith(kInvalid, "INVALID_MANIFEST", HasSubstr(message)))
        << to;
  };
  refuse("\"uniquanf-artifact\"", "\"other\"", "this program reads");
  refuse("\"version\": 2", "\"version\": 3", "this program reads");
  refuse("\"version\": 2", "\"version\": 0", "this program reads");
  refuse("\"environment\"", "\"envirnment\"", "environment is missing");
  refuse("\"architecture\":", "\"extra\": 1,\n\"architecture\":", "unknown field model.extra");
  refuse(Sha256Hex("config"), "", "model.config_sha256");
  refuse(Sha256Hex("a"), std::string(64, 'A'), "files[0].sha256");
  refuse("\"a.json\"", "\"../a.json\"", "files[0].path");
  refuse("\"a.json\"", "\"/a.json\"", "files[0].path");
  refuse("\"a.json\"", "\"b.safetensors\"", "listed twice");
  refuse("\"a.json\"", "\"manifest.json\"", "the manifest itself");
  refuse("\"report.html\"", "\"run.json\"", "listed twice");
  refuse("\"lm_head\"", "\"model.layers.0.mlp.down_proj\"", "listed twice");
  refuse("\"bits\": 3", "\"bits\": 9", "no possible layer");
  refuse("\"group_size\": 32", "\"group_size\": 33", "no possible layer");
  refuse("\"group_size\": 32", "\"group_size\": 0", "no possible layer");
  refuse("\"num_outputs\": 4", "\"num_outputs\": -4", "modules[0].num_outputs");
  refuse("\"num_outputs\": 4", "\"num_outputs\": 9223372036854775807", "modules[0].num_outputs");
  refuse("\"full_precision\",", "\"dropped\",", "dropped");
  refuse("\"bits\": 3", "\"bit\": 3", "spec: unknown field bit");
  refuse("18446744073709551615", "18446744073709551616", "size_bytes");
  refuse("18446744073709551615", "-1", "size_bytes");
}

TEST(ManifestTest, MissingOneIsSaidSo) {
  TempDir dir;
  const auto store = OpenObjectStore(dir.path()).value();
  EXPECT_THAT(ReadManifest(store.get()),
              FailsWith(absl::StatusCode::kNotFound, "ARTIFACT_NOT_FOUND", HasSubstr(dir.path())));
  ASSERT_OK(store->Write(kManifestKey, "{"));
  EXPECT_THAT(ReadManifest(store.get()),
              FailsWith(kInvalid, "INVALID_MANIFEST", HasSubstr(dir.path())));
}

}  // namespace
}  // namespace uniquanf
