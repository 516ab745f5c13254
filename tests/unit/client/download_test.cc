#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/include/uniquanf/client.h"
#include "common/artifact/manifest.h"
#include "common/base/digest.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
namespace fs = std::filesystem;

class DownloadTest : public ::testing::Test {
 protected:
  DownloadTest()
      : root_(fs::path(::testing::TempDir()) /
              absl::StrCat("download-", ::getpid(), "-",
                           ::testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::remove_all(root_);
    fs::create_directories(root_ / "artifact" / "sub");
    fs::create_directories(root_ / "out");
    Put("config.json", "{}");
    Put("sub/model.safetensors", std::string(9 << 20, 'w'));  // more than two chunks
    Put("report.html", "<html>");
    Manifest manifest;
    manifest.software_version = "test";
    manifest.environment = "test";
    manifest.model.architecture = "LlamaForCausalLM";
    manifest.model.num_layers = 1;
    const std::string digest = Sha256Hex("x");
    manifest.model.config_sha256 = digest;
    manifest.model.tensors_sha256 = digest;
    manifest.model.plan_sha256 = digest;
    for (const std::string name : {"config.json", "sub/model.safetensors"}) {
      const std::string bytes = Get(root_ / "artifact" / name);
      manifest.files.push_back({name, bytes.size(), Sha256Hex(bytes)});
    }
    manifest.attachments = {"report.html", "absent.json"};
    Put("manifest.json", manifest.ToJson());
    artifact_.uri = "file://" + (root_ / "artifact").string();
    artifact_.manifest_sha256 = Sha256Hex(manifest.ToJson());
  }
  ~DownloadTest() override { fs::remove_all(root_); }

  void Put(const std::string& name, const std::string& bytes) {
    std::ofstream(root_ / "artifact" / name, std::ios::binary | std::ios::trunc) << bytes;
  }
  static std::string Get(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return std::string((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  }
  std::string Target() const { return (root_ / "out" / "copy").string(); }
  // Everything under out/, hidden entries too.
  std::vector<std::string> Left() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(root_ / "out")) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }

  const fs::path root_;
  ArtifactInfo artifact_;
};

TEST_F(DownloadTest, CopiesEveryFileOfTheManifest) {
  int64_t last_done = 0, total = 0;
  DownloadOptions options;
  options.progress = [&](const DownloadProgress& progress) {
    EXPECT_GE(progress.bytes_done, last_done);
    last_done = progress.bytes_done;
    total = progress.bytes_total;
    return true;
  };
  const auto result = DownloadArtifact(artifact_, Target() + "/", options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->directory, Target());
  EXPECT_EQ(result->num_files, 4);
  EXPECT_EQ(last_done, total);
  for (const std::string name :
       {"manifest.json", "config.json", "sub/model.safetensors", "report.html"}) {
    EXPECT_TRUE(Get(fs::path(Target()) / name) == Get(root_ / "artifact" / name)) << name;
  }
  EXPECT_THAT(Left(), SizeIs(1)) << "no staging directory may stay";
}

TEST_F(DownloadTest, NeverOverwrites) {
  fs::create_directory(Target());
  EXPECT_EQ(ErrorReason(DownloadArtifact(artifact_, Target()).status()), "OUTPUT_EXISTS");
  fs::remove(Target());
  fs::create_symlink("/nonexistent", Target());
  EXPECT_EQ(ErrorReason(DownloadArtifact(artifact_, Target()).status()), "OUTPUT_EXISTS");
}

TEST_F(DownloadTest, TargetThatAppearsMeanwhileIsNotOverwritten) {
  DownloadOptions options;
  options.progress = [&](const DownloadProgress&) {
    fs::create_directories(Target());
    return true;
  };
  EXPECT_EQ(ErrorReason(DownloadArtifact(artifact_, Target(), options).status()), "OUTPUT_EXISTS");
  EXPECT_TRUE(fs::is_empty(Target()));
  EXPECT_THAT(Left(), SizeIs(1));
}

TEST_F(DownloadTest, ChangedByteIsFoundAndNothingIsLeft) {
  std::string bytes = Get(root_ / "artifact" / "sub/model.safetensors");
  bytes[5 << 20] ^= 1;
  Put("sub/model.safetensors", bytes);
  const auto result = DownloadArtifact(artifact_, Target());
  EXPECT_EQ(result.status().code(), absl::StatusCode::kDataLoss) << result.status();
  EXPECT_EQ(ErrorReason(result.status()), "DIGEST_MISMATCH");
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("model.safetensors"));
  EXPECT_THAT(Left(), IsEmpty());
}

TEST_F(DownloadTest, TruncatedAndMissingFilesAreFoundBeforeAnythingIsCopied) {
  Put("sub/model.safetensors", "short");
  EXPECT_EQ(ErrorReason(DownloadArtifact(artifact_, Target()).status()), "SIZE_MISMATCH");
  fs::remove(root_ / "artifact" / "sub/model.safetensors");
  EXPECT_EQ(ErrorReason(DownloadArtifact(artifact_, Target()).status()), "FILE_MISSING");
  EXPECT_THAT(Left(), IsEmpty());
}

TEST_F(DownloadTest, ManifestMustBeTheOneTheJobPublished) {
  artifact_.manifest_sha256 = Sha256Hex("another");
  EXPECT_EQ(ErrorReason(DownloadArtifact(artifact_, Target()).status()), "DIGEST_MISMATCH");
  artifact_.manifest_sha256.clear();  // not known: the manifest's own digests still hold
  EXPECT_TRUE(DownloadArtifact(artifact_, Target()).ok());
}

TEST_F(DownloadTest, MissingArtifactIsNotFound) {
  artifact_.uri += "-gone";
  const auto result = DownloadArtifact(artifact_, Target());
  EXPECT_EQ(ErrorReason(result.status()), "ARTIFACT_NOT_FOUND");
  EXPECT_THAT(std::string(result.status().message()), HasSubstr(artifact_.uri));
}

TEST_F(DownloadTest, StoppedDownloadLeavesNothing) {
  int calls = 0;
  DownloadOptions options;
  options.progress = [&](const DownloadProgress&) { return ++calls < 3; };
  const auto result = DownloadArtifact(artifact_, Target(), options);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(Left(), IsEmpty());
}

TEST_F(DownloadTest, UnwritablePlaceIsNamed) {
  std::ofstream(root_ / "out" / "file") << "x";
  const auto result = DownloadArtifact(artifact_, (root_ / "out" / "file" / "copy").string());
  EXPECT_FALSE(result.ok());
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("out/file"));
}

}  // namespace
}  // namespace uniquanf
