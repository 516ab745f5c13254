#include "common/spec/spec_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "common/base/status.h"

namespace uniquanf {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

absl::StatusOr<QuantizationSpec> Parse(const std::vector<std::string>& arguments) {
  QuantizationSpec spec;
  FlagSet flags("test [flags]", "Test.");
  AddSpecFlags(&flags, &spec);
  UQ_RETURN_IF_ERROR(flags.Parse(arguments));
  return spec;
}

std::string Error(const std::vector<std::string>& arguments) {
  const auto spec = Parse(arguments);
  EXPECT_FALSE(spec.ok());
  return std::string(spec.status().message());
}

std::string WriteFile(const std::string& name, const std::string& text) {
  const std::string path = ::testing::TempDir() + "/" + name;
  std::ofstream(path, std::ios::trunc) << text;
  return path;
}

TEST(SpecFlagsTest, NoFlagsGiveTheDefaults) {
  EXPECT_EQ(Parse({})->ToJson(), QuantizationSpec().ToJson());
}

TEST(SpecFlagsTest, PlacesAndNamesAreTakenAsTheyAre) {
  const auto spec = Parse({"--model=m", "--calibration=c", "--output=o", "--evaluation=e",
                           "--evaluation-entry=test", "--override=*.q=bits:2"});
  ASSERT_TRUE(spec.ok()) << spec.status();
  QuantizationSpec want;
  want.model_uri = "m";
  want.calibration_uri = "c";
  want.output_uri = "o";
  want.evaluation_uri = "e";
  want.evaluation_entry = "test";
  want.overrides = {{"*.q", 2, -1, false}};
  EXPECT_TRUE(*spec == want) << spec->ToJson();
}

TEST(SpecFlagsTest, FlagsOverrideTheSpecFileWhereverItStands) {
  const std::string file = WriteFile(
      "spec.json",
      R"({"model_uri": "from-file", "bits": 2, "epochs": 3, "overrides": [{"pattern": "f", "bits": 8}]})");
  const auto spec =
      Parse({"--bits=5", "--override=a=full", "--spec=" + file, "--override=b=group:32"});
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->bits, 5);
  EXPECT_EQ(spec->epochs, 3);
  EXPECT_EQ(spec->model_uri, "from-file");
  ASSERT_EQ(spec->overrides.size(), 3u);
  EXPECT_EQ(spec->overrides[0].pattern, "a");
  EXPECT_EQ(spec->overrides[1].pattern, "b");
  EXPECT_EQ(spec->overrides[2].pattern, "f") << "the first match wins, so flags go first";
}

TEST(SpecFlagsTest, BadSpecFilesAreNamed) {
  EXPECT_THAT(
      Error({"--spec=/nonexistent.json"}),
      AllOf(HasSubstr("--spec"), HasSubstr("/nonexistent.json"), HasSubstr("No such file")));
  EXPECT_THAT(Error({"--spec=" + WriteFile("bad.json", R"({"bitz": 3})")}), HasSubstr("bitz"));
  EXPECT_THAT(Error({"--spec=" + WriteFile("worse.json", "{")}), HasSubstr("worse.json"));
}

TEST(SpecFlagsTest, ErrorsSayWhatIsAllowed) {
  EXPECT_THAT(Error({"--bits=9"}), AllOf(HasSubstr("--bits"), HasSubstr("from 2 to 8")));
  EXPECT_THAT(Error({"--method=uniquant"}),
              AllOf(HasSubstr("uniquanf, flexround"), HasSubstr("Did you mean uniquanf?")));
  EXPECT_THAT(Error({"--input-prob=1.5"}), HasSubstr("from 0 to 1"));
  EXPECT_THAT(Error({"--epoch=3"}), HasSubstr("Did you mean --epochs?"));
}

TEST(SpecFlagsTest, OverridesReadAndWriteTheSameForm) {
  for (const std::string text :
       {"a.*=full", "*.down_proj=bits:3,group:64", "x=bits:8", "y=group:0"}) {
    const auto parsed = ParseModuleOverride(text);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(FormatModuleOverride(*parsed), text);
  }
  for (const std::string text : {"", "a", "a=", "=full", "a=bits:1", "a=bits:9", "a=bits:x",
                                 "a=group:-1", "a=Full", "a=bits:3;group:4", "a=bits:3,"}) {
    EXPECT_EQ(ErrorReason(ParseModuleOverride(text).status()), "INVALID_FLAG") << text;
  }
}

TEST(AbsoluteUriTest, PathsBecomeFileUrisAndUrisStay) {
  const std::string here = std::filesystem::current_path().string();
  EXPECT_EQ(AbsoluteUri(""), "");
  EXPECT_EQ(AbsoluteUri("m/./x/../y/"), "file://" + here + "/m/y");
  EXPECT_EQ(AbsoluteUri("/a/b"), "file:///a/b");
  EXPECT_EQ(AbsoluteUri("/"), "file:///");
  EXPECT_EQ(AbsoluteUri("s3://bucket/x/../y"), "s3://bucket/x/../y");
  EXPECT_EQ(AbsoluteUri("file:///z"), "file:///z");
}

}  // namespace
}  // namespace uniquanf
