// uniquanf-batch as a process: killed and continued, interrupted, refused, out of space.
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/base/crash_point.h"
#include "common/base/digest.h"
#include "common/object_store/object_store.h"
#include "tests/support/child_process.h"
#include "tests/support/model_fixture.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace uniquanf {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class BatchTest : public ::testing::Test {
 protected:
  BatchTest() {
    FixtureModel::Make("llama", 5).Write(dir_.path() + "/model");
    WriteTokenFile(dir_.path() + "/calib.safetensors",
                   {{"input_ids", RandomTokens({8, 64}, 128, 1)}});
    WriteTokenFile(dir_.path() + "/eval.safetensors", {{"valid", RandomTokens({600}, 128, 2)}});
  }

  std::vector<std::string> QuantizeArguments(const std::string& output, int epochs = 3) const {
    return {"quantize",
            "--model=" + dir_.path() + "/model",
            "--calibration=" + dir_.path() + "/calib.safetensors",
            "--evaluation=" + dir_.path() + "/eval.safetensors",
            "--evaluation-window=64",
            "--num-samples=8",
            "--sequence-length=64",
            "--bits=3",
            "--epochs=" + std::to_string(epochs),
            "--device=cpu",
            "--output=" + dir_.path() + "/" + output};
  }

  ExitStatus Run(const std::vector<std::string>& arguments,
                 const std::map<std::string, std::string>& environment = {}) {
    log_file_ = dir_.path() + "/log-" + std::to_string(++num_runs_);
    ChildProcess child(kProgram, arguments, environment, log_file_);
    const auto status = child.WaitForExit(absl::Seconds(120));
    log_ = child.Log();
    return status.value_or(ExitStatus{});
  }

  std::string ManifestDigest(const std::string& output) const {
    const auto manifest =
        (*OpenObjectStore(dir_.path() + "/" + output))->Read("manifest.json", 1 << 24);
    return manifest.ok() ? Sha256Hex(*manifest) : "";
  }
  bool Exists(const std::string& name) const {
    return std::filesystem::exists(dir_.path() + "/" + name);
  }

  const std::string kProgram = std::string(UNIQUANF_BINARY_DIR) + "/bin/uniquanf-batch";
  TempDir dir_;
  int num_runs_ = 0;
  std::string log_file_, log_;
};

TEST_F(BatchTest, KilledAtAnyCrashPointContinuesToTheSameBytes) {
  ASSERT_EQ(Run(QuantizeArguments("whole")), (ExitStatus{0, 0})) << log_;
  const std::string expected = ManifestDigest("whole");
  ASSERT_FALSE(expected.empty());
  for (const std::string& point :
       {CrashPoint("layer.shard_stored").At(1), CrashPoint("layer.result_stored").At(1),
        CrashPoint("layer.result_stored").At(2), CrashPoint("finalize.claimed").At(1),
        CrashPoint("finalize.shard_copied").At(2), CrashPoint("finalize.before_manifest").At(1),
        CrashPoint("finalize.after_manifest").At(1)}) {
    SCOPED_TRACE(point);
    const std::string output = "out-" + Sha256Hex(point).substr(0, 8);
    EXPECT_EQ(Run(QuantizeArguments(output), {{kCrashPointVariable, point}}),
              (ExitStatus{-1, SIGKILL}))
        << log_;
    // Also after the manifest is there: the marker says that the work was not yet tidied up.
    EXPECT_EQ(Run(QuantizeArguments(output)), (ExitStatus{0, 0})) << log_;
    EXPECT_FALSE(Exists(output + ".partial"));
    EXPECT_FALSE(Exists(output + "/uniquanf-incomplete"));
    EXPECT_EQ(ManifestDigest(output), expected);
  }
}

TEST_F(BatchTest, ADistillationThatIsKilledContinuesToTheSameBytes) {
  const auto arguments = [this](const std::string& output) {
    std::vector<std::string> all = QuantizeArguments(output, /*epochs=*/1);
    for (const char* flag : {"--bits=2", "--distill-window=1", "--distill-steps=6",
                             "--distill-batch-size=2", "--distill-learning-rate=0.02"}) {
      all.push_back(flag);
    }
    all.push_back("--distillation=" + dir_.path() + "/further.safetensors");
    return all;
  };
  WriteTokenFile(dir_.path() + "/further.safetensors",
                 {{"input_ids", RandomTokens({10, 64}, 128, 3)}});
  ASSERT_EQ(Run(arguments("whole")), (ExitStatus{0, 0})) << log_;
  EXPECT_THAT(log_, HasSubstr("layers 1 to 1 distilled: divergence"));
  const std::string expected = ManifestDigest("whole");
  ASSERT_FALSE(expected.empty());
  // Two layers: the third shard is the first one that is distilled.
  for (const std::string& point :
       {CrashPoint("layer.shard_stored").At(3), CrashPoint("distill.result_stored").At(1),
        CrashPoint("distill.result_stored").At(2), CrashPoint("finalize.claimed").At(1)}) {
    SCOPED_TRACE(point);
    const std::string output = "out-" + Sha256Hex(point).substr(0, 8);
    EXPECT_EQ(Run(arguments(output), {{kCrashPointVariable, point}}), (ExitStatus{-1, SIGKILL}))
        << log_;
    EXPECT_EQ(Run(arguments(output)), (ExitStatus{0, 0})) << log_;
    EXPECT_THAT(log_, HasSubstr("layer 1: done by an earlier run"));
    EXPECT_EQ(ManifestDigest(output), expected);
  }
  EXPECT_THAT(log_, HasSubstr("layers 1 to 1 distilled: done by an earlier run"));
}

TEST_F(BatchTest, TextOfItsOwnSurvivesAKill) {
  const auto arguments = [&](const std::string& output) {
    std::vector<std::string> all = QuantizeArguments(output);
    all[2] = "--calibration=self:70";
    return all;
  };
  ASSERT_EQ(Run(arguments("whole")), (ExitStatus{0, 0})) << log_;
  EXPECT_EQ(Run(arguments("out"), {{kCrashPointVariable, CrashPoint("prepare.text_stored").At(1)}}),
            (ExitStatus{-1, SIGKILL}));
  ASSERT_EQ(Run(arguments("out")), (ExitStatus{0, 0})) << log_;
  EXPECT_EQ(ManifestDigest("out"), ManifestDigest("whole"));
}

TEST_F(BatchTest, GenerateWithoutATokenizerSaysSo) {
  EXPECT_EQ(Run({"generate", dir_.path() + "/model", "--prompt=a"}), (ExitStatus{5, 0}));
  EXPECT_THAT(log_, HasSubstr("tokenizer.json"));
  EXPECT_EQ(Run({"generate", dir_.path() + "/model", "--system=a"}), (ExitStatus{2, 0}));
}

TEST_F(BatchTest, ContinuesFromFinishedLayers) {
  EXPECT_EQ(Run(QuantizeArguments("out"),
                {{kCrashPointVariable, CrashPoint("layer.shard_stored").At(2)}}),
            (ExitStatus{-1, SIGKILL}));
  ASSERT_EQ(Run(QuantizeArguments("out")), (ExitStatus{0, 0})) << log_;
  EXPECT_THAT(log_, HasSubstr("layer 0: done by an earlier run"));
}

TEST_F(BatchTest, FinishedLayersOfAModelThatChangedAreNotReused) {
  EXPECT_EQ(Run(QuantizeArguments("out"),
                {{kCrashPointVariable, CrashPoint("layer.shard_stored").At(2)}}),
            (ExitStatus{-1, SIGKILL}));
  FixtureModel model = FixtureModel::Make("llama", 5);
  for (float& value : model.tensors["model.layers.0.mlp.up_proj.weight"].values) value = -value;
  model.Write(dir_.path() + "/model");
  EXPECT_EQ(Run(QuantizeArguments("out")), (ExitStatus{5, 0})) << log_;
  EXPECT_THAT(log_, AllOf(HasSubstr("the model changed"), HasSubstr("model.safetensors"),
                          HasSubstr("--fresh")));
  std::vector<std::string> arguments = QuantizeArguments("out");
  arguments.push_back("--fresh");
  EXPECT_EQ(Run(arguments), (ExitStatus{0, 0})) << log_;
}

// OpenBLAS tries for ever to allocate what a limit does not leave.
TEST_F(BatchTest, TooLittleAddressSpaceEndsInSeconds) {
  for (const char* kibibytes : {"120000", "200000", "400000"}) {
    std::string command = absl::StrCat("ulimit -v ", kibibytes, "; exec ", kProgram);
    for (const std::string& argument : QuantizeArguments("out")) {
      absl::StrAppend(&command, " '", argument, "'");
    }
    ChildProcess child("/bin/sh", {"-c", command + " --threads=2"}, {}, dir_.path() + "/limited");
    const std::optional<ExitStatus> status = child.WaitForExit(absl::Seconds(30));
    ASSERT_TRUE(status.has_value()) << kibibytes;
    EXPECT_NE(*status, (ExitStatus{0, 0}));
    EXPECT_EQ(status->signal, 0);
  }
  std::ifstream log(dir_.path() + "/limited");
  const std::string text((std::istreambuf_iterator<char>(log)), {});
  EXPECT_THAT(text, AllOf(HasSubstr("address space"), HasSubstr("raise the limit")));
}

TEST_F(BatchTest, EvalChecksAnArtifact) {
  ASSERT_EQ(Run(QuantizeArguments("out")), (ExitStatus{0, 0})) << log_;
  const std::vector<std::string> eval = {"eval", "--model=" + dir_.path() + "/out",
                                         "--tokens=" + dir_.path() + "/eval.safetensors",
                                         "--window=64", "--device=cpu"};
  EXPECT_EQ(Run(eval), (ExitStatus{0, 0})) << log_;
  std::fstream shard(dir_.path() + "/out/model-00002-of-00003.safetensors",
                     std::ios::in | std::ios::out | std::ios::binary);
  shard.seekp(-1, std::ios::end);
  shard.put('\x55');
  shard.close();
  EXPECT_EQ(Run(eval), (ExitStatus{1, 0})) << log_;
  EXPECT_THAT(log_, HasSubstr("model-00002-of-00003.safetensors"));
}

TEST_F(BatchTest, OtherSettingsDoNotReuseFinishedLayers) {
  EXPECT_EQ(Run(QuantizeArguments("out"),
                {{kCrashPointVariable, CrashPoint("layer.shard_stored").At(2)}}),
            (ExitStatus{-1, SIGKILL}));
  ASSERT_EQ(Run(QuantizeArguments("out", /*epochs=*/2)), (ExitStatus{0, 0})) << log_;
  EXPECT_THAT(log_, Not(HasSubstr("done by an earlier run")));
}

TEST_F(BatchTest, InterruptKeepsFinishedLayersAndSaysHowToContinue) {
  ChildProcess child(kProgram, QuantizeArguments("out", /*epochs=*/2000), {},
                     dir_.path() + "/interrupted");
  ASSERT_TRUE(WaitUntil([&] { return child.Log().find("reconstructing") != std::string::npos; },
                        absl::Seconds(60)));
  child.Signal(SIGINT);
  EXPECT_EQ(child.WaitForExit(absl::Seconds(20)), (ExitStatus{130, 0}));
  EXPECT_THAT(child.Log(), HasSubstr("run the same command again"));
  EXPECT_FALSE(Exists("out"));
}

TEST_F(BatchTest, BadInputLeavesNothingBehind) {
  std::vector<std::string> arguments = QuantizeArguments("out");
  arguments.push_back("--num-samples=9");
  EXPECT_EQ(Run(arguments), (ExitStatus{5, 0}));
  EXPECT_THAT(log_, HasSubstr("has 8 calibration sequences"));
  EXPECT_FALSE(Exists("out"));
  EXPECT_FALSE(Exists("out.partial"));
}

TEST_F(BatchTest, TwoRunsOnOneOutputDoNotMix) {
  ChildProcess first(kProgram, QuantizeArguments("out", /*epochs=*/2000), {},
                     dir_.path() + "/first");
  ASSERT_TRUE(WaitUntil([&] { return first.Log().find("reconstructing") != std::string::npos; },
                        absl::Seconds(60)));
  EXPECT_EQ(Run(QuantizeArguments("out", /*epochs=*/2000)), (ExitStatus{5, 0}));
  EXPECT_THAT(log_, HasSubstr("another process is working"));
}

TEST_F(BatchTest, FullDiskFailsClearlyAndLeavesNoHalfArtifact) {
  TinyDisk disk(64 << 10);
  if (!disk.mounted()) GTEST_SKIP() << "cannot mount a small file system here";
  std::vector<std::string> arguments = QuantizeArguments("unused");
  arguments.back() = "--output=" + disk.path() + "/out";
  EXPECT_EQ(Run(arguments).code, 1) << log_;
  EXPECT_THAT(log_, HasSubstr("make room"));
  EXPECT_FALSE(std::filesystem::exists(disk.path() + "/out/manifest.json"));
}

TEST_F(BatchTest, WrongFlagsNameTheNearestOne) {
  EXPECT_EQ(Run({"quantize", "--bitz=3"}), (ExitStatus{2, 0}));
  EXPECT_THAT(log_, HasSubstr("--bits"));
  EXPECT_EQ(Run({"quantise"}), (ExitStatus{2, 0}));
  EXPECT_THAT(log_, HasSubstr("quantize"));
}

TEST_F(BatchTest, DamagedArtifactIsFoundByVerify) {
  ASSERT_EQ(Run(QuantizeArguments("out")), (ExitStatus{0, 0})) << log_;
  EXPECT_EQ(Run({"verify", dir_.path() + "/out"}), (ExitStatus{0, 0})) << log_;
  std::fstream shard(dir_.path() + "/out/model-00002-of-00003.safetensors",
                     std::ios::in | std::ios::out | std::ios::binary);
  shard.seekp(-1, std::ios::end);
  shard.put('\x55');
  shard.close();
  EXPECT_EQ(Run({"verify", dir_.path() + "/out"}), (ExitStatus{1, 0}));
  EXPECT_THAT(log_, HasSubstr("model-00002-of-00003.safetensors"));
}

}  // namespace
}  // namespace uniquanf
