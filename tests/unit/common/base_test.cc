// Tests of ids, digests, random numbers, clock, crash points.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

#include "common/base/clock.h"
#include "common/base/crash_point.h"
#include "common/base/digest.h"
#include "common/base/file_modes.h"
#include "common/base/ids.h"
#include "common/base/random.h"
#include "common/base/status.h"
#include "tests/support/status_matchers.h"

namespace uniquanf {
namespace {

using ::testing::ElementsAre;

TEST(FileModesTest, ADirectoryModeIsOctalAndKeepsItsOwnersRights) {
  uint32_t mode = 0;
  for (const auto& [text, value] : {std::pair{"0750", 0750u}, {"700", 0700u}, {"0777", 0777u}}) {
    EXPECT_OK(ParseDirectoryMode(text, &mode));
    EXPECT_EQ(mode, value);
  }
  for (const char* text : {"", "50", "0550", "0758", "01750", "1777", "rwx", "-750", "0x1e8"}) {
    EXPECT_FALSE(ParseDirectoryMode(text, &mode).ok()) << text;
  }
}

TEST(FileModesTest, AUmaskOnlyGrows) {
  const mode_t original = umask(0002);
  EXPECT_EQ(RestrictUmask(kArtifactUmask), 0002u);
  EXPECT_EQ(RestrictUmask(kPrivateUmask), 0027u);
  EXPECT_EQ(RestrictUmask(kArtifactUmask), 0077u);
  umask(original);
}

TEST(StatusTest, AnnotationKeepsCodeAndReason) {
  const absl::Status status = Annotate(InvalidInput("BAD_THING", "it is bad"), "loading x");
  EXPECT_THAT(status,
              FailsWith(absl::StatusCode::kInvalidArgument, "BAD_THING", "loading x: it is bad"));
  EXPECT_OK(Annotate(absl::OkStatus(), "nothing"));
}

// NIST's examples for SHA-256 (FIPS 180-4): one block, two blocks, nothing.
TEST(Sha256Test, KnownAnswers) {
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(Sha256Test, PiecesHashLikeTheWhole) {
  Sha256 sha;
  sha.Update("a");
  Sha256 moved = std::move(sha);
  moved.Update("");
  moved.Update("bc");
  EXPECT_EQ(moved.FinishHex(), Sha256Hex("abc"));
}

// The known answers of Random123 1.14 (kat_vectors, philox4x32 10).
TEST(PhiloxTest, KnownAnswers) {
  const Philox4 zeros = PhiloxAt(0, 0, 0);
  EXPECT_THAT(zeros.v, ElementsAre(0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u));
  const Philox4 ones = PhiloxAt(~0ull, ~0ull, ~0ull);
  EXPECT_THAT(ones.v, ElementsAre(0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu));
  const Philox4 pi = PhiloxAt(0x299f31d0a4093822ull, 0x0370734413198a2eull, 0x85a308d3243f6a88ull);
  EXPECT_THAT(pi.v, ElementsAre(0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u));
}

TEST(PhiloxTest, BernoulliThresholdIsExactAtBothEnds) {
  EXPECT_EQ(BernoulliThreshold(0.0), 0u);
  EXPECT_EQ(BernoulliThreshold(1.0), 1ull << 32);
  EXPECT_EQ(BernoulliThreshold(0.5), 1ull << 31);
}

TEST(IdsTest, RandomIdsHaveTheirFormAndDiffer) {
  const auto ids = NewRandomIdGenerator();
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    const std::string id = ids->NewId("job");
    ASSERT_THAT(id, ::testing::MatchesRegex("job-[0-9a-z]{20}"));
    seen.insert(id);
  }
  EXPECT_EQ(seen.size(), 1000u);
}

TEST(IdsTest, SameSeedGivesSameIds) {
  const auto a = NewSeededIdGenerator(7), b = NewSeededIdGenerator(7), c = NewSeededIdGenerator(8);
  const std::string first = a->NewId("t");
  EXPECT_EQ(first, b->NewId("t"));
  EXPECT_NE(first, c->NewId("t"));
  EXPECT_NE(first, a->NewId("t"));
}

TEST(ClockTest, MonotonicDoesNotGoBack) {
  const absl::Duration before = SystemClock().Monotonic();
  EXPECT_GE(SystemClock().Monotonic(), before);
  EXPECT_GT(SystemClock().Now(), absl::FromUnixSeconds(1'600'000'000));
}

void HitThreeTimes() {
  UQ_CRASH_POINT("store.before_begin");
  for (int i = 1; i <= 3; ++i) {
    fprintf(stderr, "round %d\n", i);
    UQ_CRASH_POINT("store.before_commit");
  }
  _exit(0);
}

// "threadsafe" death tests start the program anew, which reads the environment set here.
class CrashPointDeathTest : public ::testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
  void TearDown() override { unsetenv(kCrashPointVariable); }
};

TEST_F(CrashPointDeathTest, DoesNothingWhenNotArmed) {
  EXPECT_EXIT(HitThreeTimes(), ::testing::ExitedWithCode(0), "round 3");
}

TEST_F(CrashPointDeathTest, KillsAtTheFirstHit) {
  setenv(kCrashPointVariable, CrashPoint("store.before_commit").name(), 1);
  EXPECT_EXIT(HitThreeTimes(), ::testing::KilledBySignal(SIGKILL),
              "round 1\n.*store.before_commit");
}

TEST_F(CrashPointDeathTest, KillsAtTheNamedHit) {
  setenv(kCrashPointVariable, CrashPoint("store.before_commit").At(3).c_str(), 1);
  EXPECT_EXIT(HitThreeTimes(), ::testing::KilledBySignal(SIGKILL),
              "round 3\n.*store.before_commit");
}

TEST_F(CrashPointDeathTest, AProgramStartedWithANameThatNothingHitsEndsAndNamesThoseThereAre) {
  setenv(kCrashPointVariable, "store.before_comit", 1);
  EXPECT_EXIT(HitThreeTimes(), ::testing::ExitedWithCode(64),
              "store.before_comit names no crash point.*store.before_commit");
}

TEST(CrashPointTest, EveryNameIsAPointOfTheProduct) {
  std::string sources;
  for (const char* folder : {"common", "server", "worker", "client"}) {
    const std::string root = std::string(UNIQUANF_SOURCE_DIR "/") + folder;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
      if (entry.path().extension() != ".cc") continue;
      std::ifstream file(entry.path(), std::ios::binary);
      sources.append(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
  }
  for (const std::string_view name : kCrashPoints) {
    EXPECT_NE(sources.find("UQ_CRASH_POINT(\"" + std::string(name) + "\")"), std::string::npos)
        << name << " is armed by nothing but tests";
  }
}

TEST(CrashPointTest, NamesAreComponentAndEventOnceEach) {
  std::set<std::string_view> names;
  for (const std::string_view name : kCrashPoints) {
    EXPECT_TRUE(names.insert(name).second) << name << " twice";
    EXPECT_THAT(std::string(name), ::testing::MatchesRegex("[a-z0-9_]+\\.[a-z_]+"));
  }
}

}  // namespace
}  // namespace uniquanf
