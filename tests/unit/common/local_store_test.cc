// The local store: the conformance suite, and what is its own: links, temporaries, faults, crashes.
#include "common/object_store/local_store.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"

#include "common/base/crash_point.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/common/object_store_conformance.h"

namespace uniquanf {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::shared_ptr<ObjectStore> NewTemporaryLocalStore() {
  auto dir = std::make_shared<TempDir>();
  // The directory lives as long as the store.
  std::shared_ptr<ObjectStore> store = OpenLocalStore(dir->File("not/yet/there")).value();
  ObjectStore* const raw = store.get();
  return std::shared_ptr<ObjectStore>(raw, [dir, store](ObjectStore*) {});
}
std::shared_ptr<ObjectStore> NewPrefixedLocalStore() {
  return NewPrefixedStore(NewTemporaryLocalStore(), "some/prefix");
}

INSTANTIATE_TEST_SUITE_P(Local, ObjectStoreConformance, ::testing::Values(NewTemporaryLocalStore));
INSTANTIATE_TEST_SUITE_P(Prefixed, ObjectStoreConformance,
                         ::testing::Values(NewPrefixedLocalStore));

class LocalStoreTest : public ::testing::Test {
 protected:
  LocalStoreTest() : store_(OpenLocalStore(dir_.path()).value()) {}
  TempDir dir_;
  std::shared_ptr<ObjectStore> store_;
};

TEST_F(LocalStoreTest, NothingIsLeftBesideTheObject) {
  ASSERT_OK(store_->Write("a/b", "x"));
  WriteOptions options;
  options.if_absent = true;
  EXPECT_FALSE(store_->Write("a/b", "y", options).ok());
  EXPECT_THAT(dir_.Files(), ElementsAre("a/b"));
  ASSERT_OK(store_->Delete("a/b"));
  EXPECT_TRUE(std::filesystem::is_empty(dir_.path()));
}

uint32_t ModeOf(const std::string& path) {
  struct stat info = {};
  return stat(path.c_str(), &info) == 0 ? info.st_mode & 07777 : 0;
}

// S-15: whoever opens a store says who may read what is written to it, whatever the umask says.
TEST_F(LocalStoreTest, DirectoriesAndFilesGetTheModeAskedFor) {
  for (const mode_t mask : {0022, 0077}) {
    const mode_t before = umask(mask);
    const std::string root = dir_.File(absl::StrCat("made/", mask, "/out"));
    ASSERT_OK(OpenLocalStore(root, 0750).value()->Write("a/b", "x"));
    umask(before);
    EXPECT_EQ(ModeOf(dir_.File("made")), 0750u) << "the directories above are made alike";
    EXPECT_EQ(ModeOf(root), 0750u);
    EXPECT_EQ(ModeOf(root + "/a"), 0750u);
    EXPECT_EQ(ModeOf(root + "/a/b"), 0640u);
  }
  // A directory that is there already keeps its mode.
  ASSERT_EQ(chmod(dir_.path().c_str(), 0701), 0);
  ASSERT_OK(OpenLocalStore(dir_.path(), 0755).value()->Write("c", "x"));
  EXPECT_EQ(ModeOf(dir_.path()), 0701u);
  EXPECT_EQ(ModeOf(dir_.File("c")), 0644u);
}

TEST_F(LocalStoreTest, WithoutAModeTheUmaskDecides) {
  const mode_t before = umask(0027);
  ASSERT_OK(store_->Write("d/e", "x"));
  umask(before);
  EXPECT_EQ(ModeOf(dir_.File("d")), 0750u);
  EXPECT_EQ(ModeOf(dir_.File("d/e")), 0640u);
}

TEST_F(LocalStoreTest, KeysThatCrossObjectsConflict) {
  ASSERT_OK(store_->Write("a", "x"));
  EXPECT_THAT(store_->Write("a/b", "y"),
              FailsWith(absl::StatusCode::kFailedPrecondition, "OBJECT_KEY_CONFLICT"));
  ASSERT_OK(store_->Write("d/e", "x"));
  EXPECT_THAT(store_->Write("d", "y"),
              FailsWith(absl::StatusCode::kFailedPrecondition, "OBJECT_KEY_CONFLICT"));
  EXPECT_THAT(dir_.Files(), ElementsAre("a", "d/e"));
  EXPECT_OK(store_->Delete("d"));
  EXPECT_OK(store_->Delete("a/b"));
  EXPECT_THAT(dir_.Files(), ElementsAre("a", "d/e"));
}

TEST_F(LocalStoreTest, RootThatIsAFileConflicts) {
  WriteFile(dir_.File("file"), "x");
  const auto store = OpenLocalStore(dir_.File("file")).value();
  EXPECT_THAT(store->Write("a", "y"),
              FailsWith(absl::StatusCode::kFailedPrecondition, "OBJECT_KEY_CONFLICT"));
  const auto below = OpenLocalStore(dir_.File("file/dir")).value();
  EXPECT_THAT(below->Write("a", "y"),
              FailsWith(absl::StatusCode::kFailedPrecondition, "OBJECT_KEY_CONFLICT"));
  EXPECT_EQ(ReadFile(dir_.File("file")), "x");
}

TEST_F(LocalStoreTest, SegmentsLongerThanTheFileSystemAllowsAreBadKeys) {
  EXPECT_THAT(store_->Write(std::string(300, 'x'), "y"),
              FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_OBJECT_KEY"));
  EXPECT_THAT(dir_.Files(), IsEmpty());
}

TEST_F(LocalStoreTest, LinksInsideAreReadAndLinksOutAreRefused) {
  TempDir outside;
  WriteFile(outside.File("secret"), "secret");
  ASSERT_OK(store_->Write("blobs/1", "inside"));
  std::filesystem::create_symlink("blobs/1", dir_.File("good"));
  std::filesystem::create_symlink(outside.File("secret"), dir_.File("bad"));
  std::filesystem::create_directory_symlink(outside.path(), dir_.File("baddir"));
  std::filesystem::create_symlink("nowhere", dir_.File("dangling"));
  EXPECT_EQ(*store_->Read("good", 100), "inside");
  const auto denied = FailsWith(absl::StatusCode::kPermissionDenied, "PERMISSION_DENIED");
  EXPECT_THAT(store_->Read("bad", 100), denied);
  EXPECT_THAT(store_->Stat("bad"), denied);
  EXPECT_THAT(store_->Read("baddir/secret", 100), denied);
  EXPECT_THAT(store_->Write("baddir/new", "x"), denied);
  EXPECT_THAT(store_->Delete("baddir/secret"), denied);
  EXPECT_THAT(store_->Stat("dangling"), FailsWith(absl::StatusCode::kNotFound, "OBJECT_NOT_FOUND"));
  EXPECT_THAT(outside.Files(), ElementsAre("secret"));
  ASSERT_OK_AND_ASSIGN(const ListResult list, store_->List({}));
  ASSERT_EQ(list.objects.size(), 2u);
  EXPECT_EQ(list.objects[0].key, "blobs/1");
  EXPECT_EQ(list.objects[1].key, "good");
}

TEST_F(LocalStoreTest, WritingOverALinkReplacesTheLinkNotItsTarget) {
  TempDir outside;
  WriteFile(outside.File("target"), "old");
  std::filesystem::create_symlink(outside.File("target"), dir_.File("link"));
  ASSERT_OK(store_->Write("link", "new"));
  EXPECT_EQ(ReadFile(outside.File("target")), "old");
  EXPECT_EQ(*store_->Read("link", 10), "new");
}

TEST_F(LocalStoreTest, HuggingFaceCacheLayoutIsReadable) {
  WriteFile(dir_.File("models--a/blobs/abc"), "weights");
  WriteFile(dir_.File("models--a/refs/main"), "rev");
  std::filesystem::create_directories(dir_.File("models--a/snapshots/rev"));
  std::filesystem::create_symlink("../../blobs/abc", dir_.File("models--a/snapshots/rev/m"));
  std::filesystem::create_symlink("../../refs/main", dir_.File("models--a/snapshots/rev/r"));
  const auto store = OpenLocalStore(dir_.File("models--a/snapshots/rev")).value();
  EXPECT_EQ(*store->Read("m", 100), "weights");
  EXPECT_THAT(store->Read("r", 100),
              FailsWith(absl::StatusCode::kPermissionDenied, "PERMISSION_DENIED"));
}

TEST_F(LocalStoreTest, FifosDoNotHangAndAreNoObjects) {
  ASSERT_EQ(mkfifo(dir_.File("fifo").c_str(), 0600), 0);
  EXPECT_THAT(store_->Read("fifo", 10), FailsWith(absl::StatusCode::kNotFound, "OBJECT_NOT_FOUND"));
  ASSERT_OK_AND_ASSIGN(const ListResult list, store_->List({}));
  EXPECT_THAT(list.objects, IsEmpty());
}

TEST_F(LocalStoreTest, RelativeRootsAreFixedWhenOpened) {
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(dir_.path());
  const auto store = OpenLocalStore("sub/dir").value();
  std::filesystem::current_path(before);
  ASSERT_OK(store->Write("a", "x"));
  EXPECT_THAT(dir_.Files(), ElementsAre("sub/dir/a"));
}

TEST_F(LocalStoreTest, SweepsOldTemporariesThatNobodyHolds) {
  const auto age = [&](const std::string& name) {
    const struct timespec old[2] = {{1'000'000'000, 0}, {1'000'000'000, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, dir_.File(name).c_str(), old, 0), 0);
  };
  WriteFile(dir_.File("d/.tmp-dead"), "x");
  WriteFile(dir_.File("d/.tmp-young"), "x");
  WriteFile(dir_.File("e/.tmp-dead"), "x");
  age("d/.tmp-dead");
  age("e/.tmp-dead");
  ASSERT_OK_AND_ASSIGN(auto writer, store_->NewWriter("d/key", {}));  // sweeps d, not e
  std::string held;
  for (const std::string& file : dir_.Files()) {
    EXPECT_NE(file, "d/.tmp-dead");
    if (file != "d/.tmp-young" && file != "e/.tmp-dead") held = file;
  }
  ASSERT_THAT(held, HasSubstr("d/.tmp-"));
  age(held);
  ASSERT_OK_AND_ASSIGN(const int num_removed, SweepTemporaries(dir_.path(), absl::Hours(1)));
  EXPECT_EQ(num_removed, 1);
  ASSERT_OK(writer->Commit());
  EXPECT_THAT(dir_.Files(), ElementsAre("d/.tmp-young", "d/key"));
}

TEST_F(LocalStoreTest, FullDiskIsReportedAndLeavesNothing) {
  TinyDisk disk(64 << 10);
  if (!disk.mounted()) GTEST_SKIP() << "needs the right to mount a tmpfs";
  const auto store = OpenLocalStore(disk.path()).value();
  ASSERT_OK(store->Write("dir/small", "before"));
  const std::string large(1 << 20, 'x');
  const auto full =
      FailsWith(absl::StatusCode::kResourceExhausted, "STORAGE_FULL", HasSubstr("dir/large"));
  EXPECT_THAT(store->Write("dir/large", large), full);
  EXPECT_THAT(store->Stat("dir/large"), FailsWith(absl::StatusCode::kNotFound, "OBJECT_NOT_FOUND"));
  // The old version stays when its replacement does not fit, and the space comes back.
  EXPECT_THAT(store->Write("dir/small", large),
              FailsWith(absl::StatusCode::kResourceExhausted, "STORAGE_FULL"));
  EXPECT_EQ(*store->Read("dir/small", 100), "before");
  EXPECT_OK(store->Write("dir/half", std::string(30 << 10, 'x')));
}

TEST_F(LocalStoreTest, FileSizeLimitIsReportedAsFull) {
  // In a child process: the limit would stay with this one.
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const struct rlimit limit = {1000, 1000};
    setrlimit(RLIMIT_FSIZE, &limit);
    const absl::Status status = store_->Write("large", std::string(5000, 'x'));
    _exit(absl::IsResourceExhausted(status) && ErrorReason(status) == "STORAGE_FULL" ? 0 : 1);
  }
  int result = -1;
  ASSERT_EQ(waitpid(child, &result, 0), child);
  EXPECT_TRUE(WIFEXITED(result) && WEXITSTATUS(result) == 0);
  EXPECT_THAT(dir_.Files(), IsEmpty());
}

TEST_F(LocalStoreTest, UnwritableDirectoryIsPermissionDenied) {
  ASSERT_OK(store_->Write("dir/a", "x"));
  ASSERT_EQ(chmod(dir_.File("dir").c_str(), 0555), 0);
  ASSERT_EQ(chmod(dir_.path().c_str(), 0755), 0);
  // Root may write anywhere: become somebody else in a child.
  const pid_t child = fork();
  if (child == 0) {
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) _exit(2);
    const absl::Status status = store_->Write("dir/b", "x");
    const absl::Status root = store_->Write("new/b", "x");
    const bool good = ErrorReason(status) == "PERMISSION_DENIED" &&
                      absl::StrContains(status.message(), "dir/b") &&
                      (ErrorReason(root) == "PERMISSION_DENIED" || root.ok());
    _exit(good ? 0 : 1);
  }
  int result = -1;
  ASSERT_EQ(waitpid(child, &result, 0), child);
  EXPECT_TRUE(WIFEXITED(result) && WEXITSTATUS(result) == 0) << WEXITSTATUS(result);
  ASSERT_EQ(chmod(dir_.File("dir").c_str(), 0755), 0);
  EXPECT_FALSE(std::filesystem::exists(dir_.File("dir/b")));
}

constexpr CrashPoint kPublishingPoints[] = {"local_store.before_rename",
                                            "local_store.after_rename"};

// Killed between "durable" and "published", and right after: the old object, or the new one whole.
class LocalStoreCrashDeathTest : public ::testing::TestWithParam<CrashPoint> {};

TEST_P(LocalStoreCrashDeathTest, LeavesOldOrNewObjectWhole) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  // The death test's child runs this from the start: both must use one directory.
  const char* inherited = getenv("UNIQUANF_TEST_CRASH_DIR");
  TempDir dir;
  const std::string path = inherited != nullptr ? inherited : dir.path();
  if (inherited == nullptr) {
    ASSERT_OK(OpenLocalStore(path).value()->Write("key", "old"));
    setenv("UNIQUANF_TEST_CRASH_DIR", path.c_str(), 1);
    setenv(kCrashPointVariable, GetParam().name(), 1);
  }
  const auto store = OpenLocalStore(path).value();
  EXPECT_EXIT((void)store->Write("key", "new"), ::testing::KilledBySignal(SIGKILL),
              GetParam().name());
  unsetenv("UNIQUANF_TEST_CRASH_DIR");
  unsetenv(kCrashPointVariable);
  const bool published = std::string(GetParam().name()) == "local_store.after_rename";
  EXPECT_EQ(*store->Read("key", 10), published ? "new" : "old");
  EXPECT_EQ(dir.Files().size(), published ? 1u : 2u);
  ASSERT_OK_AND_ASSIGN(const ListResult list, store->List({}));
  EXPECT_EQ(list.objects.size(), 1u);
  EXPECT_OK(SweepTemporaries(path, absl::ZeroDuration()));
  EXPECT_THAT(dir.Files(), ElementsAre("key"));
}

INSTANTIATE_TEST_SUITE_P(Points, LocalStoreCrashDeathTest, ::testing::ValuesIn(kPublishingPoints),
                         [](const auto& info) {
                           return absl::StrReplaceAll(info.param.name(), {{".", "_"}});
                         });

}  // namespace
}  // namespace uniquanf
