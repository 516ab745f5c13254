// Tests of the small things that everybody uses: waiting, texts, sizes, files, tokens that stop.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>
#include <memory>
#include <string>

#include "common/base/backoff.h"
#include "common/base/digest.h"
#include "common/base/environment.h"
#include "common/base/format_bytes.h"
#include "common/base/read_file.h"
#include "common/base/status.h"
#include "common/base/stop_token.h"
#include "common/base/utf8.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace uniquanf {
namespace {

using ::testing::HasSubstr;

TEST(BackoffTest, DoublesUpToTheLimit) {
  const auto wait = [](int64_t failures) {
    return ExponentialBackoff(absl::Milliseconds(50), absl::Seconds(2), failures);
  };
  EXPECT_EQ(wait(0), absl::Milliseconds(50));
  EXPECT_EQ(wait(1), absl::Milliseconds(50));
  EXPECT_EQ(wait(2), absl::Milliseconds(100));
  EXPECT_EQ(wait(6), absl::Milliseconds(1600));
  EXPECT_EQ(wait(7), absl::Seconds(2));
  EXPECT_EQ(wait(int64_t{1} << 60), absl::Seconds(2));
  EXPECT_EQ(WithJitter(absl::Seconds(2), 0), absl::Seconds(1));
  EXPECT_EQ(WithJitter(absl::Seconds(2), 0.5), absl::Milliseconds(1500));
}

TEST(Sha256Test, KnowsItsForm) {
  EXPECT_TRUE(IsSha256Hex(Sha256Hex("")));
  EXPECT_FALSE(IsSha256Hex(""));
  EXPECT_FALSE(IsSha256Hex(std::string(63, 'a')));
  EXPECT_FALSE(IsSha256Hex(std::string(65, 'a')));
  EXPECT_FALSE(IsSha256Hex(std::string(63, 'a') + "A"));
  EXPECT_FALSE(IsSha256Hex(std::string(63, 'a') + "g"));
}

TEST(ShortTextTest, CutsBeforeACharacterAndRepairs) {
  EXPECT_EQ(ShortText("abc", 3), "abc");
  EXPECT_EQ(ShortText("abcd", 3), "abc...");
  EXPECT_EQ(ShortText("ab\xC3\xA4", 4), "ab\xC3\xA4");
  EXPECT_EQ(ShortText("ab\xC3\xA4", 3), "ab...");
  EXPECT_EQ(ShortText("a\xF0\x9F\x98\x80z", 4), "a...");
  EXPECT_EQ(ShortText("a\xFFz\xC3", 10), "a?z?");
  EXPECT_EQ(ShortText("\xED\xA0\x80", 10), "???");  // half a pair of surrogates
  EXPECT_EQ(ShortText(std::string(3000, 'x')).size(), kMaxMessageBytes + 3);
}

TEST(FormatBytesTest, ThreeDigitsOfTheLargestUnit) {
  EXPECT_EQ(FormatBytes(-1), "0 B");
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.00 KiB");
  EXPECT_EQ(FormatBytes(int64_t{12} << 20), "12.0 MiB");
  EXPECT_EQ(FormatBytes(int64_t{80} << 30), "80.0 GiB");
}

TEST(ReadSmallFileTest, WholeFilesOrTheReason) {
  const TempDir dir;
  const std::string path = dir.File("file");
  std::ofstream(path, std::ios::binary) << std::string("a\0b", 3);
  ASSERT_OK_AND_ASSIGN(const std::string bytes, ReadSmallFile(path));
  EXPECT_EQ(bytes, std::string("a\0b", 3));
  EXPECT_OK(ReadSmallFile(path, 3));
  EXPECT_THAT(ReadSmallFile(path, 2), FailsWith(absl::StatusCode::kOutOfRange, "FILE_TOO_LARGE",
                                                HasSubstr("more than 2 bytes")));
  EXPECT_THAT(
      ReadSmallFile(dir.File("none")),
      FailsWith(absl::StatusCode::kNotFound, "FILE_NOT_READABLE", HasSubstr("No such file")));
  EXPECT_THAT(ReadSmallFile(dir.File("")),
              FailsWith(absl::StatusCode::kNotFound, "FILE_NOT_READABLE", HasSubstr("directory")));
}

TEST(EnvironmentTest, EmptyIsNotSet) {
  setenv("UNIQUANF_TEST_VARIABLE", "x", 1);
  EXPECT_EQ(EnvironmentVariable("UNIQUANF_TEST_VARIABLE", "fallback"), "x");
  setenv("UNIQUANF_TEST_VARIABLE", "", 1);
  EXPECT_EQ(EnvironmentVariable("UNIQUANF_TEST_VARIABLE", "fallback"), "fallback");
  unsetenv("UNIQUANF_TEST_VARIABLE");
  EXPECT_EQ(EnvironmentVariable("UNIQUANF_TEST_VARIABLE", "fallback"), "fallback");
  EXPECT_EQ(EnvironmentVariable("UNIQUANF_TEST_VARIABLE"), "");
}

TEST(StopTokenTest, CopiesAskTheSameQuestion) {
  EXPECT_FALSE(StopToken().StopRequested());
  EXPECT_FALSE(StopToken().CanStop());
  StopToken copy;
  const auto stop = std::make_shared<bool>(false);
  {
    const StopToken token([stop] { return *stop; });
    copy = token;
  }
  EXPECT_TRUE(copy.CanStop());
  EXPECT_FALSE(copy.StopRequested());
  *stop = true;
  EXPECT_TRUE(copy.StopRequested());
}

}  // namespace
}  // namespace uniquanf
