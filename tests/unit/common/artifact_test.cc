// Reading and verifying a whole artifact, sound and damaged.
#include <gtest/gtest.h>

#include "absl/strings/str_replace.h"
#include "common/artifact/artifact_reader.h"
#include "tests/support/faulty_store.h"
#include "tests/support/sample_artifact.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace uniquanf {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kShard[] = "model-layer-00000.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class ArtifactTest : public ::testing::Test {
 protected:
  ArtifactTest() : store_(OpenObjectStore(dir_.path()).value()) {}
  std::vector<std::string> Problems() {
    const absl::StatusOr<VerifyReport> report = VerifyArtifact(store_, {});
    EXPECT_OK(report);
    return report.ok() ? report->problems : std::vector<std::string>();
  }
  // Changes a file's bytes; sizes and digests of the manifest follow.
  void WriteWith(const std::string& file, const std::string& from, const std::string& to) {
    WriteSampleArtifact(store_.get(), [&](std::map<std::string, std::string>* files) {
      const std::string changed = absl::StrReplaceAll((*files)[file], {{from, to}});
      ASSERT_NE(changed, (*files)[file]);
      (*files)[file] = changed;
    });
  }
  TempDir dir_;
  std::shared_ptr<ObjectStore> store_;
};

TEST_F(ArtifactTest, SoundArtifactIsReadAndVerified) {
  WriteSampleArtifact(store_.get());
  ASSERT_OK_AND_ASSIGN(const auto reader, ArtifactReader::Open(store_));
  ASSERT_OK_AND_ASSIGN(const PackedLinear packed,
                       reader->ReadPacked("model.layers.0.mlp.down_proj"));
  EXPECT_EQ(packed.bits, 2);
  EXPECT_EQ(packed.num_inputs, 40);
  EXPECT_THAT(reader->ReadPacked("model.layers.0.self_attn.o_proj"),
              FailsWith(absl::StatusCode::kFailedPrecondition, "MODULE_NOT_QUANTIZED",
                        HasSubstr("override")));
  EXPECT_THAT(reader->ReadPacked("none"), FailsWith(kInvalid, "TENSOR_NOT_FOUND"));
  EXPECT_EQ(reader->tensors().size(), 9u);

  uint64_t last_done = 0, last_total = 1;
  ASSERT_OK_AND_ASSIGN(const VerifyReport report,
                       VerifyArtifact(store_, [&](uint64_t done, uint64_t total) {
                         last_done = done;
                         last_total = total;
                       }));
  EXPECT_THAT(report.problems, IsEmpty());
  EXPECT_EQ(report.num_files, 4);
  EXPECT_EQ(report.num_modules, 4);
  EXPECT_EQ(last_done, last_total);
  EXPECT_EQ(report.num_bytes, last_total);
}

TEST_F(ArtifactTest, NoManifestIsNoArtifact) {
  EXPECT_THAT(ArtifactReader::Open(store_),
              FailsWith(absl::StatusCode::kNotFound, "ARTIFACT_NOT_FOUND"));
  EXPECT_THAT(VerifyArtifact(store_, {}),
              FailsWith(absl::StatusCode::kNotFound, "ARTIFACT_NOT_FOUND"));
}

TEST_F(ArtifactTest, LeftoverMarkerIsNoDamage) {
  WriteSampleArtifact(store_.get());
  ASSERT_OK(store_->Write(kOutputMarkerKey, "plan"));
  EXPECT_THAT(Problems(), IsEmpty());
  ASSERT_OK(store_->Write("uniquanf-incomplete-2", "plan"));
  EXPECT_THAT(Problems(), ElementsAre(HasSubstr("uniquanf-incomplete-2")));
}

TEST_F(ArtifactTest, EveryFlippedByteIsFound) {
  WriteSampleArtifact(store_.get());
  for (const char* file : {kShard, kIndex, "config.json", "tokenizer.json"}) {
    const std::string good = *store_->Read(file, 1 << 20);
    for (size_t at = 0; at < good.size(); at += 1 + good.size() / 7) {
      std::string bad = good;
      bad[at] ^= 1;
      ASSERT_OK(store_->Write(file, bad));
      EXPECT_THAT(Problems(), ::testing::Contains(HasSubstr(file))) << file << " at " << at;
    }
    ASSERT_OK(store_->Write(file, good.substr(0, good.size() - 1)));
    EXPECT_THAT(Problems(), ::testing::Contains(HasSubstr(file)));
    ASSERT_OK(store_->Delete(file));
    EXPECT_THAT(Problems(), ::testing::Contains(HasSubstr(file)));
    ASSERT_OK(store_->Write(file, good));
  }
  EXPECT_THAT(Problems(), IsEmpty());
}

TEST_F(ArtifactTest, AttachmentsMayChangeAndUnknownFilesAreNamed) {
  WriteSampleArtifact(store_.get());
  ASSERT_OK(store_->Write("report.html", "changed"));
  EXPECT_THAT(Problems(), IsEmpty());
  ASSERT_OK(store_->Write("stray", "x"));
  EXPECT_THAT(Problems(), ElementsAre(HasSubstr("stray")));
}

TEST_F(ArtifactTest, TensorsThatTheManifestContradictsAreNamed) {
  WriteSampleArtifact(store_.get(), {}, [](Manifest* m) { m->modules[0].bits = 4; });
  EXPECT_THAT(Problems(), ::testing::Contains(HasSubstr("model.layers.0.self_attn.q_proj")));
  WriteSampleArtifact(store_.get(), {}, [](Manifest* m) { m->modules[1].num_outputs = 4; });
  EXPECT_THAT(Problems(), ElementsAre(HasSubstr("down_proj.qweight")));
  WriteSampleArtifact(store_.get(), {}, [](Manifest* m) { m->modules.erase(m->modules.begin()); });
  EXPECT_THAT(Problems(), ::testing::Contains(HasSubstr("belongs to no quantized module")));
  WriteSampleArtifact(store_.get(), {}, [](Manifest* m) { m->modules[2].num_outputs = 3; });
  EXPECT_THAT(Problems(), ElementsAre(HasSubstr("o_proj.weight: its shape differs")));
  WriteSampleArtifact(store_.get(), {}, [](Manifest* m) { m->modules[2].name = "gone"; });
  EXPECT_THAT(Problems(), ElementsAre(HasSubstr("gone.weight: missing")));
}

TEST_F(ArtifactTest, WrongConfigsAndIndexesAreRefused) {
  WriteWith("config.json", "\"uniquanf\"", "\"gptq\"");
  EXPECT_THAT(ArtifactReader::Open(store_),
              FailsWith(kInvalid, "INVALID_ARTIFACT", HasSubstr("quant_method")));
  WriteWith("config.json", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
  EXPECT_THAT(Problems(), ElementsAre(HasSubstr("lm_head.weight: missing")));
  WriteWith(kIndex, "q_proj.alpha_3", "q_proj.alpha_4");
  EXPECT_THAT(ArtifactReader::Open(store_),
              FailsWith(kInvalid, "INVALID_ARTIFACT", HasSubstr("alpha_3")));
  WriteWith(kIndex, "\"weight_map\": {", "\"weight_map\": {\"extra\": \"x\",");
  EXPECT_THAT(ArtifactReader::Open(store_),
              FailsWith(kInvalid, "INVALID_ARTIFACT", HasSubstr("10 tensors")));
}

TEST_F(ArtifactTest, TruncatedShardIsRefusedAtOpen) {
  WriteSampleArtifact(store_.get());
  const std::string shard = *store_->Read(kShard, 1 << 20);
  ASSERT_OK(store_->Write(kShard, shard.substr(0, shard.size() - 4)));
  EXPECT_THAT(ArtifactReader::Open(store_),
              FailsWith(kInvalid, "INVALID_ARTIFACT", HasSubstr(kShard)));
}

TEST_F(ArtifactTest, DirtyPaddingAndBiasAreNamed) {
  // Tensors lie by element size, then by name: the last bytes of the I32 block are
  // q_proj.qweight's, whose K is no padding; so damage everything and look for the two messages.
  WriteSampleArtifact(store_.get(), [](std::map<std::string, std::string>* files) {
    std::string& shard = (*files)[kShard];
    uint64_t header_bytes =
        static_cast<unsigned char>(shard[0]) + 256u * static_cast<unsigned char>(shard[1]);
    // down_proj.qweight is the first tensor: [2, 2, 3] words; the last one is padding above bit 7.
    shard[8 + header_bytes + 11 * 4 + 3] = '\x80';
    // q_bias of q_proj: F16 [2, 4], the last 16 bytes (no F16 name sorts after it).
    shard[shard.size() - 1] = '\x01';
  });
  const std::vector<std::string> problems = Problems();
  EXPECT_THAT(problems, ::testing::Contains(HasSubstr("down_proj.qweight: bits beyond column 40")));
  EXPECT_THAT(problems, ::testing::Contains(HasSubstr("q_proj.q_bias: not all zeros")));
}

TEST_F(ArtifactTest, StorageFailureIsAnErrorAndNeverASoundReport) {
  WriteSampleArtifact(store_.get());
  int num_operations = 0;
  ASSERT_OK(
      VerifyArtifact(NewFaultyStore(store_, FailNth(0, absl::OkStatus(), &num_operations)), {}));
  ASSERT_GT(num_operations, 10);
  for (int n = 1; n <= num_operations; ++n) {
    const auto report = VerifyArtifact(
        NewFaultyStore(store_, FailNth(n, Unavailable("STORE_UNAVAILABLE", "as told"))), {});
    EXPECT_THAT(report, FailsWith(absl::StatusCode::kUnavailable, "STORE_UNAVAILABLE")) << n;
  }
}

}  // namespace
}  // namespace uniquanf
