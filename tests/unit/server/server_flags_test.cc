#include "server/service/server_flags.h"

#include <gtest/gtest.h>

#include <fstream>

#include "gmock/gmock.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace uniquanf::server {
namespace {

constexpr char kUri[] = "postgresql://me:secret@host/db";

TEST(ServerFlagsTest, AStateWithAPasswordNeedsNoArgument) {
  TempDir dir;
  const std::string file = dir.File("state");
  std::ofstream(file) << "\n  " << kUri << "\n";
  EXPECT_EQ(ParseServerFlags({}, kUri)->state, kUri);
  EXPECT_EQ(ParseServerFlags({"--state-file=" + file})->state, kUri);
}

TEST(ServerFlagsTest, FlagsComeBeforeTheEnvironmentAndTheStateBeforeItsFile) {
  TempDir dir;
  const std::string file = dir.File("state");
  std::ofstream(file) << "/from/file";
  EXPECT_EQ(ParseServerFlags({"--state-file=" + file}, kUri)->state, "/from/file");
  EXPECT_EQ(ParseServerFlags({"--state-file=" + file, "--state=/from/flag"}, kUri)->state,
            "/from/flag");
  EXPECT_THAT(ParseServerFlags({"--data-dir=/d"})->state, "/d/state.sqlite");
}

TEST(ServerFlagsTest, AStateFileThatHoldsNothingIsNamed) {
  TempDir dir;
  std::ofstream(dir.File("empty")) << " \n";
  for (const std::string& file : {dir.File("none"), dir.File("empty")}) {
    const auto flags = ParseServerFlags({"--state-file=" + file});
    EXPECT_THAT(flags, FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_FLAG"));
    EXPECT_THAT(std::string(flags.status().message()), testing::HasSubstr(file));
  }
}

}  // namespace
}  // namespace uniquanf::server
