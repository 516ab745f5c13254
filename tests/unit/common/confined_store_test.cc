// Tenants' data (SECURITY R11, R13, T3, T4): grants, references to credentials, and a local store
// that nothing leads out of.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/object_store/local_store.h"
#include "common/object_store/open_data.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace uniquanf {
namespace {

namespace fs = std::filesystem;
using absl::StatusCode;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kForeign[] = "alice's own";

// /srv/mallory, which mallory may name and write in, beside /srv/alice, which she may not.
class ConfinedStoreTest : public ::testing::Test {
 protected:
  ConfinedStoreTest() : mallory_(dir_.File("mallory")), alice_(dir_.File("alice")) {
    fs::create_directories(mallory_ + "/m");
    fs::create_directories(alice_);
    std::ofstream(alice_ + "/config.json") << kForeign;
    std::ofstream(mallory_ + "/m/config.json") << "hers";
  }
  std::shared_ptr<const DataAccess> Access(const std::string& prefix,
                                           std::vector<std::string> withheld = {}) const {
    std::vector<DataGrant> grants = {
        {prefix, {std::begin(kDataPurposes), std::end(kDataPurposes)}, ""}};
    return std::make_shared<DataAccess>(std::move(grants), std::move(withheld), "");
  }
  // As a task opens `uri`, and reads `key` below it.
  absl::StatusOr<std::string> Read(const std::string& uri, const std::string& key,
                                   const std::string& prefix = "") const {
    const std::string allowed = prefix.empty() ? "file://" + mallory_ : prefix;
    UQ_ASSIGN_OR_RETURN(const auto store, OpenData(uri, {{}, Access(allowed)}));
    return store->Read(key, 1 << 10);
  }
  absl::StatusOr<int64_t> SizeOf(const std::string& uri, const std::string& key) const {
    UQ_ASSIGN_OR_RETURN(const auto store, OpenData(uri, {{}, Access("file://" + mallory_)}));
    UQ_ASSIGN_OR_RETURN(const auto info, store->Stat(key));
    return info.size_bytes;
  }
  absl::Status Write(const std::string& uri, const std::string& key) const {
    DataOptions options{{}, Access("file://" + mallory_)};
    options.purpose = DataPurpose::kOutput;
    UQ_ASSIGN_OR_RETURN(const auto store, OpenData(uri, options));
    return store->Write(key, "written");
  }
  std::string Uri(const std::string& name) const {
    return absl::StrCat("file://", mallory_, "/", name);
  }

  TempDir dir_;
  const std::string mallory_, alice_;
};

TEST_F(ConfinedStoreTest, T3_WhatLiesBelowThePrefixIsReadThroughLinksToo) {
  EXPECT_EQ(*Read(Uri("m"), "config.json"), "hers");
  EXPECT_EQ(*SizeOf(Uri("m"), "config.json"), 4);
  EXPECT_EQ(*Read("file://" + mallory_, "m/config.json"), "hers");
  EXPECT_EQ(*Read(Uri("m"), "config.json", Uri("m")), "hers");
  // As in the Hugging Face cache.
  fs::create_directories(mallory_ + "/models--a/snapshots/1");
  fs::create_directories(mallory_ + "/models--a/blobs");
  std::ofstream(mallory_ + "/models--a/blobs/b") << "blob";
  fs::create_symlink("../../blobs/b", mallory_ + "/models--a/snapshots/1/config.json");
  EXPECT_EQ(*Read(Uri("models--a/snapshots/1"), "config.json"), "blob");
  fs::create_symlink("m", mallory_ + "/link");
  EXPECT_EQ(*Read(Uri("link"), "config.json"), "hers");
}

TEST_F(ConfinedStoreTest, T3_NothingOutsideThePrefixIsReadHoweverItIsNamed) {
  fs::create_symlink(alice_, mallory_ + "/absolute");
  fs::create_symlink("../alice", mallory_ + "/relative");
  fs::create_symlink("/proc/self/root" + alice_, mallory_ + "/magic");
  fs::create_symlink(absl::StrCat("/proc/", getpid(), "/root", alice_), mallory_ + "/pid");
  fs::create_symlink(alice_ + "/config.json", mallory_ + "/m/file");
  const auto denied = FailsWith(StatusCode::kPermissionDenied, "DATA_NOT_ALLOWED");
  for (const char* name : {"absolute", "relative", "magic", "pid"}) {
    EXPECT_THAT(Read(Uri(name), "config.json").status(), denied) << name;
    EXPECT_THAT(Read("file://" + mallory_, absl::StrCat(name, "/config.json")).status(), denied)
        << name;
  }
  EXPECT_THAT(Read(Uri("m"), "file").status(), denied);
  EXPECT_THAT(Read("file://" + alice_, "config.json").status(), denied);
  EXPECT_THAT(Read("file:///proc/self/root" + alice_, "config.json").status(), denied);
  EXPECT_THAT(Read("file://" + mallory_ + "x", "config.json").status(), denied);
  EXPECT_THAT(Read(Uri("../alice"), "config.json").status(),
              FailsWith(StatusCode::kInvalidArgument, "INVALID_SPEC"));
  // Nor does a listing show what a link leads to, nor a message what it holds.
  const auto store = *OpenData(Uri("absolute"), {{}, Access("file://" + mallory_)});
  EXPECT_THAT(store->List({}).status(), denied);
  EXPECT_THAT(std::string(Read(Uri("m"), "file").status().message()), Not(HasSubstr(kForeign)));
}

TEST_F(ConfinedStoreTest, T3_ALinkThatIsSwappedMeanwhileLeadsNowhereElse) {
  const std::string link = mallory_ + "/swapped", other = mallory_ + "/other";
  fs::create_directory_symlink("m", link);
  const auto store = *OpenData(Uri("swapped"), {{}, Access("file://" + mallory_)});
  std::atomic<bool> stop{false};
  std::thread swapper([&] {
    for (int i = 0; !stop; ++i) {
      fs::remove(other);
      fs::create_directory_symlink(i % 2 == 0 ? alice_ : "m", other);
      fs::rename(other, link);
    }
  });
  int num_read = 0, num_denied = 0;
  for (int i = 0; i < 1000; ++i) {
    const absl::StatusOr<std::string> read = store->Read("config.json", 1 << 10);
    if (read.ok()) {
      ASSERT_EQ(*read, "hers");
      ++num_read;
    } else {
      ++num_denied;
    }
    const absl::Status written = store->Write(absl::StrCat("w", i), "x");
    EXPECT_FALSE(written.ok()) << "below a link nothing is written";
  }
  stop = true;
  swapper.join();
  EXPECT_GT(num_read, 0);
  EXPECT_GT(num_denied, 0);
  EXPECT_EQ(std::distance(fs::directory_iterator(alice_), fs::directory_iterator()), 1);
}

TEST_F(ConfinedStoreTest, T3_NothingOutsideThePrefixIsWritten) {
  fs::create_symlink("../alice", mallory_ + "/out");
  fs::create_symlink("m", mallory_ + "/in");
  EXPECT_FALSE(Write(Uri("out"), "x").ok());
  EXPECT_FALSE(Write(Uri("out/new"), "x").ok());
  EXPECT_FALSE(Write("file://" + mallory_, "out/x").ok());
  EXPECT_FALSE(Write(Uri("in"), "x").ok()) << "no link at all, as below a store's root";
  EXPECT_FALSE(Write("file://" + alice_, "x").ok());
  EXPECT_THAT(Write(Uri("new/deep"), "a/b"), IsOk());
  EXPECT_EQ(std::ifstream(mallory_ + "/new/deep/a/b").get(), 'w');
  EXPECT_EQ(std::distance(fs::directory_iterator(alice_), fs::directory_iterator()), 1);
  // Nor removed.
  const auto store = *OpenData(Uri("out"), {{}, Access("file://" + mallory_)});
  EXPECT_FALSE(store->Delete("config.json").ok());
  EXPECT_TRUE(fs::exists(alice_ + "/config.json"));
  const auto own = *OpenData(Uri("new/deep"), {{}, Access("file://" + mallory_)});
  EXPECT_THAT(own->Delete("a/b"), IsOk());
  EXPECT_FALSE(fs::exists(mallory_ + "/new/deep/a"));
}

TEST_F(ConfinedStoreTest, T3_AMountBelowThePrefixIsNotOfIt) {
  fs::create_directories(mallory_ + "/mounted");
  const pid_t child = fork();
  if (child == 0) {
    if (unshare(CLONE_NEWNS) != 0 || mount("", "/", "", MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount(alice_.c_str(), (mallory_ + "/mounted").c_str(), "", MS_BIND, nullptr) != 0) {
      _exit(77);
    }
    const absl::Status read = Read(Uri("mounted"), "config.json").status();
    const absl::Status written = Write(Uri("mounted"), "x");
    // Whoever grants everything has nothing outside of it.
    const bool all = Read(Uri("mounted"), "config.json", "file:///").ok();
    const bool named = Read(Uri("mounted"), "config.json", Uri("mounted")).ok();
    _exit(ErrorReason(read) == "DATA_NOT_ALLOWED" && !written.ok() && all && named ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "mount namespaces are not allowed here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_FALSE(fs::exists(alice_ + "/x"));
}

TEST_F(ConfinedStoreTest, APrefixThatIsAFileGrantsNoneOfItsNeighbours) {
  std::ofstream(mallory_ + "/calibration.txt") << "text";
  fs::create_symlink("calibration.txt", mallory_ + "/alias.txt");
  const auto open = [&](const std::string& file, const std::string& granted) {
    const auto location = OpenDataLocation(Uri(file), {{}, Access(Uri(granted))});
    return location.ok() ? location->store->Read(location->key, 100) : location.status();
  };
  EXPECT_EQ(*open("calibration.txt", "calibration.txt"), "text");
  EXPECT_FALSE(open("m/config.json", "calibration.txt").ok());
  EXPECT_FALSE(open("alias.txt", "alias.txt").ok()) << "a link is no file of its own";
}

TEST_F(ConfinedStoreTest, WhatIsWithheldIsNotReadThroughAWiderGrant) {
  const auto read = [&](const std::string& uri, const std::string& prefix) {
    const auto store = OpenData(uri, {{}, Access(prefix, {"file://" + alice_})});
    return store.ok() ? (*store)->Read("config.json", 100).status() : store.status();
  };
  fs::create_symlink("../alice", mallory_ + "/link");
  const std::string all = "file://" + dir_.path();
  EXPECT_THAT(read(Uri("link"), all), FailsWith(StatusCode::kPermissionDenied, "DATA_NOT_ALLOWED"));
  EXPECT_THAT(read(Uri("link"), "file:///"),
              FailsWith(StatusCode::kPermissionDenied, "DATA_NOT_ALLOWED"));
  EXPECT_THAT(read(Uri("m"), all), IsOk());
  EXPECT_THAT(read("file://" + alice_, "file://" + alice_), IsOk()) << "its own grant";
}

TEST(DataAccessTest, TheLongestPrefixForThePurposeCounts) {
  const DataAccess access({{"s3://b", {DataPurpose::kModel}, "file:wide"},
                           {"s3://b/a/", {DataPurpose::kModel, DataPurpose::kOutput}, "env:A"},
                           {"s3://b/a/c", {DataPurpose::kOutput}, ""}},
                          {}, "");
  EXPECT_EQ((*access.Find(DataPurpose::kModel, "s3://b/x"))->credentials, "file:wide");
  EXPECT_EQ((*access.Find(DataPurpose::kModel, "s3://b/a/c/d"))->credentials, "env:A");
  EXPECT_EQ((*access.Find(DataPurpose::kOutput, "s3://b/a/c/d"))->credentials, "");
  EXPECT_EQ((*access.Find(DataPurpose::kModel, "s3://b/ab"))->credentials, "file:wide");
  const auto denied = FailsWith(StatusCode::kPermissionDenied, "DATA_NOT_ALLOWED");
  EXPECT_THAT(access.Find(DataPurpose::kOutput, "s3://b/x").status(), denied);
  EXPECT_THAT(access.Find(DataPurpose::kModel, "s3://bb/x").status(), denied);
  EXPECT_THAT(access.Find(DataPurpose::kEvaluation, "s3://b/a/x").status(), denied);
}

TEST(DataAccessTest, ReferencesHaveFormsThatNoSecretHas) {
  for (const char* good : {"file:research", "file:a.b-c_d", "env:RESEARCH",
                           "role:arn:aws:iam::123456789012:role/research"}) {
    EXPECT_THAT(CheckCredentialsReference(good), IsOk()) << good;
  }
  for (const char* bad : {"", "research", "file:", "file:../x", "file:a/b", "file:.hidden",
                          "env:A-B", "AKIAIOSFODNN7EXAMPLE", "role:", "https://k:s@h"}) {
    EXPECT_FALSE(CheckCredentialsReference(bad).ok()) << bad;
  }
}

TEST(DataAccessTest, CredentialsAreTheTenantsAloneOrNone) {
  TempDir dir;
  std::ofstream(dir.File("research")) << "[default]\naws_access_key_id = k\n";
  const Environment process = [](absl::string_view name) -> std::string {
    if (name == "AWS_ACCESS_KEY_ID") return "the worker's";
    if (name == "AWS_REGION") return "eu-west-1";
    if (name == "AWS_WEB_IDENTITY_TOKEN_FILE") return "/token";
    if (name == "HOME") return "/root";
    if (name == "T_ACCESS_KEY_ID") return "key";
    if (name == "T_SECRET_ACCESS_KEY") return "secret";
    return "";
  };
  const auto value = [&](const std::string& reference, const char* name) {
    return (*EnvironmentFor(reference, dir.path(), process))(name);
  };
  EXPECT_EQ(value("", "AWS_ACCESS_KEY_ID"), "the worker's");
  for (const char* reference : {"file:research", "env:T", "role:arn"}) {
    EXPECT_NE(value(reference, "AWS_ACCESS_KEY_ID"), "the worker's") << reference;
    EXPECT_EQ(value(reference, "HOME"), "") << reference;
    EXPECT_EQ(value(reference, "AWS_EC2_METADATA_DISABLED"), "true") << reference;
    EXPECT_EQ(value(reference, "AWS_REGION"), "eu-west-1") << reference;
  }
  EXPECT_EQ(value("file:research", "AWS_SHARED_CREDENTIALS_FILE"), dir.File("research"));
  EXPECT_EQ(value("file:research", "AWS_WEB_IDENTITY_TOKEN_FILE"), "");
  EXPECT_EQ(value("env:T", "AWS_SECRET_ACCESS_KEY"), "secret");
  EXPECT_EQ(value("role:arn:x", "AWS_ROLE_ARN"), "arn:x");
  EXPECT_EQ(value("role:arn:x", "AWS_WEB_IDENTITY_TOKEN_FILE"), "/token");
  const auto unusable = [&](const std::string& reference, const std::string& directory) {
    return EnvironmentFor(reference, directory, process).status();
  };
  for (const char* reference : {"file:missing", "env:U", "nonsense"}) {
    EXPECT_THAT(
        unusable(reference, dir.path()),
        FailsWith(StatusCode::kFailedPrecondition, "INVALID_CREDENTIALS", HasSubstr(reference)));
  }
  EXPECT_THAT(unusable("file:research", ""),
              FailsWith(StatusCode::kFailedPrecondition, "INVALID_CREDENTIALS",
                        HasSubstr("--credentials-dir")));
}

}  // namespace
}  // namespace uniquanf
