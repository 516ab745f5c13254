#include "common/base/flag_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/base/status.h"

namespace uniquanf {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

struct Values {
  std::string name = "x", kind = "red";
  int count = 4;
  uint64_t seed = 0;
  double rate = 0.5;
  bool loud = false, color = true;
  absl::Duration wait = absl::Seconds(10);
  absl::Duration rest = absl::InfiniteDuration();
  std::vector<std::string> tags;
  std::string file;
};

class FlagSetTest : public ::testing::Test {
 protected:
  FlagSetTest() : flags_("prog do FILE [flags]", "Does it.") {
    flags_.String("name", "NAME", &values_.name, "a name");
    flags_.Choice("kind", {"red", "green"}, &values_.kind, "a color");
    flags_.Section("Numbers");
    flags_.Int("count", &values_.count, 2, 8, "how many");
    flags_.Uint64("seed", &values_.seed, 0, UINT64_MAX, "the seed");
    flags_.Double("rate", &values_.rate, 0, 1, "a rate");
    flags_.Bool("loud", &values_.loud, "be loud");
    flags_.Bool("color", &values_.color, "use color");
    flags_.Duration("wait", &values_.wait, absl::ZeroDuration(), "how long");
    flags_.OptionalDuration("rest", &values_.rest, absl::Minutes(1), absl::ZeroDuration(), "pause");
    flags_.Repeated("tag", "TAG", &values_.tags, "a tag");
    flags_.Positional("FILE", false, &values_.file, "the file");
  }
  absl::Status Parse(std::vector<std::string> arguments) { return flags_.Parse(arguments); }
  std::string Error(std::vector<std::string> arguments) {
    const absl::Status status = flags_.Parse(arguments);
    EXPECT_EQ(ErrorReason(status), "INVALID_FLAG") << status;
    return std::string(status.message());
  }
  Values values_;
  FlagSet flags_;
};

TEST_F(FlagSetTest, ALetterIsTheSameFlag) {
  flags_.String("output", "table|json", &values_.file, "form");
  flags_.Letter('o');
  ASSERT_TRUE(Parse({"-o", "json"}).ok());
  EXPECT_EQ(values_.file, "json");
  ASSERT_TRUE(Parse({"-o=table"}).ok());
  EXPECT_EQ(values_.file, "table");
  EXPECT_THAT(Error({"-x"}), HasSubstr("unknown flag -x"));
  EXPECT_THAT(flags_.Help(), HasSubstr("-o, --output=table|json"));
}

TEST_F(FlagSetTest, AVariableOfTheEnvironmentStandsForAFlagThatIsNotGiven) {
  flags_.Int("port", &values_.count, 1, 9, "the port");
  flags_.Environment("TEST_PORT", "7");
  ASSERT_TRUE(Parse({}).ok());
  EXPECT_EQ(values_.count, 7);
  EXPECT_FALSE(flags_.WasSet("port"));
  ASSERT_TRUE(Parse({"--port=3"}).ok());
  EXPECT_EQ(values_.count, 3);
  EXPECT_THAT(flags_.Help(), HasSubstr("the port (default: 4) [TEST_PORT]"));
  flags_.Int("pool", &values_.count, 1, 9, "the pool");
  flags_.Environment("TEST_POOL", "70");
  EXPECT_THAT(Error({}), AllOf(HasSubstr("TEST_POOL"), HasSubstr("--pool"), HasSubstr("1 to 9")));
}

TEST(FlagSetPositionalTest, ArgumentsThatRepeatTakeTheRest) {
  std::string directory;
  std::vector<std::string> files;
  FlagSet flags("x DIRECTORY FILE...", "");
  flags.Positional("DIRECTORY", true, &directory, "where");
  flags.Positionals("FILE", true, &files, "what");
  ASSERT_TRUE(flags.Parse({"d", "a", "b"}).ok());
  EXPECT_EQ(directory, "d");
  EXPECT_THAT(files, ElementsAre("a", "b"));
  EXPECT_THAT(std::string(flags.Parse({"d"}).message()), HasSubstr("FILE is missing"));
}

// Help, manual page and completion are made from the declarations: each flag is in all three.
TEST_F(FlagSetTest, HelpManualAndCompletionSayTheSame) {
  flags_.GlobalSection("Global flags", "See prog help flags.");
  flags_.String("server", "HOST:PORT", &values_.name, "where it is");
  flags_.Example("prog do x", "Does x.");
  flags_.ExitCodes("0: done");
  const CommandDescription command = flags_.Describe();
  ASSERT_TRUE(flags_.Parse({"--help-man"}).ok());
  EXPECT_TRUE(flags_.help_requested());
  const std::string manual = flags_.Help();
  ASSERT_TRUE(flags_.Parse({"__complete", "--"}).ok());
  EXPECT_TRUE(flags_.completion_requested());
  const std::string completions = flags_.Help();
  ASSERT_TRUE(flags_.Parse({"--help"}).ok());
  const std::string help = flags_.Help();
  for (const FlagDescription& flag : command.flags) {
    EXPECT_THAT(completions, HasSubstr("--" + flag.name + "\t" + flag.help + "\n"));
    EXPECT_THAT(manual, HasSubstr("\\-\\-" + flag.name));
    if (!flag.global) {
      EXPECT_THAT(help, HasSubstr("--" + flag.name));
    }
  }
  EXPECT_THAT(help, AllOf(Not(HasSubstr("--server")), HasSubstr("See prog help flags."),
                          HasSubstr("# Does x.\n  prog do x\n"), HasSubstr("Exit codes: 0: done")));
  EXPECT_THAT(manual, AllOf(HasSubstr(".TH \"PROG\\-DO\" 1"), HasSubstr("prog\\-do \\- Does it\n"),
                            HasSubstr(".SH EXAMPLES"), HasSubstr(".SH \"EXIT STATUS\"")));
}

TEST_F(FlagSetTest, CompletionKnowsWhatAValueMayBe) {
  const auto complete = [this](std::vector<std::string> words) {
    words.insert(words.begin(), "__complete");
    EXPECT_TRUE(flags_.Parse(words).ok());
    return flags_.Help();
  };
  EXPECT_EQ(complete({"--ki"}), "--kind\ta color\n");
  EXPECT_EQ(complete({"--kind="}), "--kind=red\n--kind=green\n");
  EXPECT_EQ(complete({"--kind", "g"}), "green\n");
  EXPECT_EQ(complete({"--loud="}), "--loud=true\n--loud=false\n");
  EXPECT_EQ(complete({"--count", ""}), "");
  EXPECT_EQ(complete({""}), ":file\n");
  EXPECT_EQ(complete({"--loud", ""}), ":file\n");
  EXPECT_EQ(complete({"a.txt", ""}), "");
  EXPECT_EQ(complete({"--", "--ki"}), ":file\n");
  EXPECT_EQ(complete({"--nonsense=", "--wait=x", "--kind="}), "--kind=red\n--kind=green\n");
  EXPECT_EQ(complete({}), ":file\n");
}

TEST_F(FlagSetTest, AValueThatMayBeLeftOut) {
  ASSERT_TRUE(Parse({}).ok());
  EXPECT_EQ(values_.rest, absl::InfiniteDuration());
  // What follows is no value of it.
  ASSERT_TRUE(Parse({"--rest", "in.txt"}).ok());
  EXPECT_EQ(values_.rest, absl::Minutes(1));
  EXPECT_EQ(values_.file, "in.txt");
  ASSERT_TRUE(Parse({"--rest=5s"}).ok());
  EXPECT_EQ(values_.rest, absl::Seconds(5));
  EXPECT_THAT(Error({"--rest=soon"}), HasSubstr("--rest"));
  EXPECT_THAT(Error({"--no-rest"}), HasSubstr("no-rest"));
  EXPECT_THAT(flags_.Help(), HasSubstr("--rest[=DURATION]"));
}

TEST_F(FlagSetTest, BothFormsOfAValueAndOfABoolAreRead) {
  ASSERT_TRUE(Parse({"--name=a=b", "--count", "8", "in.txt", "--loud", "--no-color", "--tag", "t1",
                     "--rate=1e-3", "--tag=t2", "--seed", "18446744073709551615", "--wait", "1m30s",
                     "--kind=green"})
                  .ok());
  EXPECT_EQ(values_.name, "a=b");
  EXPECT_EQ(values_.count, 8);
  EXPECT_EQ(values_.file, "in.txt");
  EXPECT_TRUE(values_.loud);
  EXPECT_FALSE(values_.color);
  EXPECT_EQ(values_.rate, 1e-3);
  EXPECT_EQ(values_.seed, 18446744073709551615u);
  EXPECT_EQ(values_.wait, absl::Seconds(90));
  EXPECT_EQ(values_.kind, "green");
  EXPECT_THAT(values_.tags, ElementsAre("t1", "t2"));
  EXPECT_TRUE(flags_.WasSet("count"));
  EXPECT_TRUE(flags_.WasSet("FILE"));
}

TEST_F(FlagSetTest, LastValueWinsAndUnsetFlagsKeepTheirDefaults) {
  ASSERT_TRUE(Parse({"--count=3", "--count=5", "--loud=true", "--loud=false"}).ok());
  EXPECT_EQ(values_.count, 5);
  EXPECT_FALSE(values_.loud);
  EXPECT_EQ(values_.name, "x");
  EXPECT_FALSE(flags_.WasSet("name"));
}

TEST_F(FlagSetTest, DoubleDashEndsTheFlags) {
  ASSERT_TRUE(Parse({"--", "--loud"}).ok());
  EXPECT_EQ(values_.file, "--loud");
  EXPECT_FALSE(values_.loud);
}

TEST_F(FlagSetTest, ErrorsNameFlagValueAndWhatIsAllowed) {
  EXPECT_THAT(Error({"--count=9"}),
              AllOf(HasSubstr("--count"), HasSubstr("\"9\""), HasSubstr("from 2 to 8")));
  EXPECT_THAT(Error({"--count=3x"}), HasSubstr("\"3x\""));
  EXPECT_THAT(Error({"--count="}), HasSubstr("from 2 to 8"));
  EXPECT_THAT(Error({"--seed=-1"}), HasSubstr("0 or more"));
  EXPECT_THAT(Error({"--rate=nan"}), HasSubstr("from 0 to 1"));
  EXPECT_THAT(Error({"--loud=maybe"}), HasSubstr("true or false"));
  EXPECT_THAT(Error({"--wait=10"}), HasSubstr("90s"));
  EXPECT_THAT(Error({"--kind=grene"}), AllOf(HasSubstr("red, green"), HasSubstr("mean green?")));
  EXPECT_THAT(Error({"a", "b"}), HasSubstr("unexpected argument \"b\""));
}

TEST_F(FlagSetTest, MissingValuesAreNotTakenFromTheNextFlag) {
  EXPECT_THAT(Error({"--name", "--loud"}), HasSubstr("--name needs a value: --name=NAME"));
  EXPECT_THAT(Error({"--count"}), HasSubstr("--count needs a value"));
}

TEST_F(FlagSetTest, UnknownFlagsSuggestTheNearest) {
  EXPECT_THAT(Error({"--cuont=3"}), HasSubstr("unknown flag --cuont. Did you mean --count?"));
  EXPECT_THAT(Error({"-count=3"}), HasSubstr("Did you mean --count?"));
  EXPECT_THAT(Error({"--zzzzzz"}), Not(HasSubstr("Did you mean")));
  EXPECT_THAT(Error({"--no-name"}), HasSubstr("unknown flag --no-name"));
}

TEST_F(FlagSetTest, HelpListsEverythingAndChangesNothing) {
  ASSERT_TRUE(Parse({"--count=7", "--help", "--bogus"}).ok());
  EXPECT_TRUE(flags_.help_requested());
  EXPECT_EQ(values_.count, 4);
  const std::string help = flags_.Help();
  EXPECT_THAT(help, HasSubstr("Usage: prog do FILE [flags]"));
  EXPECT_THAT(help, HasSubstr("--count=N"));
  EXPECT_THAT(help, HasSubstr("how many (default: 4)"));
  EXPECT_THAT(help, HasSubstr("\nNumbers:\n"));
}

TEST(FlagSetPhaseTest, EarlyFlagsAreAppliedFirstWhereverTheyStand) {
  std::string log;
  FlagSet flags("p", "s");
  const auto append = [&log](absl::string_view text) {
    log += std::string(text);
    return absl::OkStatus();
  };
  flags.Custom("late", "X", "", "", append);
  flags.Custom("early", "X", "", "", append, FlagSet::kEarly);
  ASSERT_TRUE(flags.Parse({"--late=b", "--early=a"}).ok());
  EXPECT_EQ(log, "ab");
}

TEST(FlagSetChoiceTest, EmptyIsAllowedWhereItIsTheDefault) {
  std::string device, kind = "red";
  FlagSet flags("p", "s");
  flags.Choice("device", {"cpu", "cuda"}, &device, "");
  flags.Choice("kind", {"red", "green"}, &kind, "");
  EXPECT_TRUE(flags.Parse({"--device=cuda", "--device="}).ok());
  EXPECT_EQ(device, "");
  EXPECT_FALSE(flags.Parse({"--kind="}).ok());
}

TEST(FlagSetPositionalTest, MissingRequiredArgumentIsNamed) {
  std::string job;
  FlagSet flags("p get JOB", "s");
  flags.Positional("JOB", true, &job, "the job");
  EXPECT_THAT(std::string(flags.Parse({}).message()), HasSubstr("argument JOB is missing"));
}

TEST(NearestNameTest, FindsTyposAndPartsButNoStrangers) {
  const std::vector<std::string> names = {"submit", "get", "list", "num-samples", "cancel"};
  EXPECT_EQ(NearestName("sumbit", names), "submit");
  EXPECT_EQ(NearestName("lst", names), "list");
  EXPECT_EQ(NearestName("samples", names), "num-samples");
  EXPECT_EQ(NearestName("cancle", names), "cancel");
  EXPECT_EQ(NearestName("frobnicate", names), "");
  EXPECT_EQ(NearestName("", names), "");
}

}  // namespace
}  // namespace uniquanf
