// S-15, R15: who may read what the programs write. State, working objects and caches: nobody but
// their user; artifacts: their group as well.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/e2e/service_test.h"
#include "tests/support/status_matchers.h"

namespace uniquanf {
namespace {

namespace fs = std::filesystem;

uint32_t ModeOf(const fs::path& path) {
  return static_cast<uint32_t>(fs::symlink_status(path).permissions());
}

class FileModesTest : public ServiceTest {
 protected:
  // As most people have it.
  FileModesTest() : umask_(umask(0022)) {}
  ~FileModesTest() override { umask(umask_); }

  // Everything below, and `directory` itself.
  static void ExpectModes(const fs::path& directory, uint32_t of_directories, uint32_t of_files) {
    EXPECT_EQ(ModeOf(directory), of_directories) << directory;
    int num_files = 0;
    for (const auto& entry : fs::recursive_directory_iterator(directory)) {
      EXPECT_EQ(ModeOf(entry.path()), entry.is_directory() ? of_directories : of_files)
          << entry.path();
      num_files += !entry.is_directory();
    }
    EXPECT_GT(num_files, 0) << directory;
  }
  std::vector<std::string> QuantizeArguments(const std::string& output) const {
    const QuantizationSpec spec = Spec(output);
    return {"quantize",
            absl::StrCat("--model=", spec.model_uri),
            absl::StrCat("--calibration=", spec.calibration_uri),
            absl::StrCat("--output=", spec.output_uri),
            "--bits=3",
            "--num-samples=4",
            "--sequence-length=128",
            "--epochs=1"};
  }

 private:
  const mode_t umask_;
};

TEST_F(FileModesTest, TheServiceKeepsItsWorkToItselfAndArtifactsToTheGroup) {
  ASSERT_TRUE(cluster_.StartServer());
  cluster_.StartWorker("w1", {.flags = {"--cache-dir=" + cluster_.File("cache")}});
  const std::string job = Submit(Spec("out"));
  ASSERT_TRUE(WaitUntilALayerRuns(job));
  ASSERT_OK(cluster_.client().PauseJob(job));
  const auto uid = cluster_.client().GetJob(job);
  ASSERT_OK(uid);
  fs::path work;
  for (const auto& entry : fs::recursive_directory_iterator(cluster_.File("."))) {
    if (entry.path().filename() == uid->uid) work = entry.path();
    if (absl::StrContains(entry.path().filename().string(), "state.sqlite")) {
      EXPECT_EQ(ModeOf(entry.path()) & 077, 0u) << entry.path();
    }
  }
  ASSERT_FALSE(work.empty());
  ExpectModes(work, 0700, 0600);
  EXPECT_EQ(ModeOf(work.parent_path()), 0700u);
  ASSERT_OK(cluster_.client().ResumeJob(job));
  const auto done = cluster_.WaitForJob(job, absl::Minutes(2));
  ASSERT_OK(done);
  ASSERT_EQ(done->state, JobState::kSucceeded);
  ExpectModes(cluster_.File("out"), 0750, 0640);
  const CommandResult downloaded = cluster_.Run(
      "uniquanf", {"download", job, cluster_.File("copy"), "--server", cluster_.address()});
  ASSERT_EQ(downloaded.status, (ExitStatus{0, 0})) << downloaded.output;
  ExpectModes(cluster_.File("copy"), 0750, 0640);
}

TEST_F(FileModesTest, AWorkersFlagAndItsUmaskDecideAboutArtifacts) {
  ASSERT_TRUE(cluster_.StartServer());
  cluster_.StartWorker("w1", {.flags = {"--artifact-mode=0755"}});
  const auto open = cluster_.WaitForJob(Submit(Spec("open")), absl::Minutes(2));
  ASSERT_OK(open);
  ExpectModes(cluster_.File("open"), 0755, 0644);
  cluster_.worker("w1")->Kill();
  umask(0077);
  cluster_.StartWorker("w1");
  const auto closed = cluster_.WaitForJob(Submit(Spec("closed")), absl::Minutes(2));
  ASSERT_OK(closed);
  ExpectModes(cluster_.File("closed"), 0700, 0600);
}

TEST_F(FileModesTest, TheBatchProgramWritesForTheGroupAndWorksForItself) {
  ASSERT_EQ(cluster_.Run("uniquanf-batch", QuantizeArguments("out")).status, (ExitStatus{0, 0}));
  ExpectModes(cluster_.File("out"), 0750, 0640);
  std::vector<std::string> arguments = QuantizeArguments("mine");
  arguments.push_back("--artifact-mode=700");
  arguments.push_back("--work=" + cluster_.File("work"));
  ASSERT_EQ(cluster_.Run("uniquanf-batch", arguments).status, (ExitStatus{0, 0}));
  ExpectModes(cluster_.File("mine"), 0700, 0600);
  const CommandResult exported = cluster_.Run(
      "uniquanf-batch", {"export", cluster_.File("out"), "--output=" + cluster_.File("exported")});
  ASSERT_EQ(exported.status, (ExitStatus{0, 0})) << exported.output;
  ExpectModes(cluster_.File("exported"), 0750, 0640);
  arguments.back() = "--artifact-mode=0788";
  EXPECT_EQ(cluster_.Run("uniquanf-batch", arguments).status, (ExitStatus{2, 0}));
}

}  // namespace
}  // namespace uniquanf
