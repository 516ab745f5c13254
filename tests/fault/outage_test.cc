// The parts of chaos runs that decide what is done to whom and when.
#include "tests/fault/outage.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>

#include "tests/fault/chaos_plan.h"
#include "tests/support/child_process.h"
#include "tests/support/temp_dir.h"

namespace uniquanf {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);

TEST(OutageTest, KillsWaitsAndStartsAgain) {
  std::atomic<int> num_crashes{0}, num_restarts{0};
  Outage outage({[&] { return ++num_crashes > 0; }, [&] { return ++num_restarts > 0; }});
  EXPECT_EQ(outage.down_for(), absl::ZeroDuration());
  for (int i = 1; i <= 2; ++i) {
    outage.Begin(absl::Milliseconds(20));
    EXPECT_TRUE(outage.Wait());
    EXPECT_FALSE(outage.down());
    EXPECT_EQ(num_crashes, i);
    EXPECT_EQ(num_restarts, i);
    EXPECT_EQ(outage.num_crashes(), i);
    EXPECT_GE(outage.down_for(), i * absl::Milliseconds(20));
  }
}

TEST(OutageTest, SaysThatItDidNotComeBack) {
  Outage outage({[] { return true; }, [] { return false; }});
  outage.Begin(absl::ZeroDuration());
  EXPECT_FALSE(outage.Wait());
}

TEST(ChildProcessTest, KnowsWhetherASignalWouldEndIt) {
  const TempDir dir;
  ChildProcess deaf("/bin/sleep", {"60"}, {}, dir.File("log"));
  EXPECT_FALSE(deaf.Handles(SIGTERM));
  ChildProcess listening("/bin/sh", {"-c", "trap : TERM; while :; do sleep 1; done"}, {},
                         dir.File("log"));
  EXPECT_TRUE(WaitUntil([&] { return listening.Handles(SIGTERM); }, kPatience));
  EXPECT_FALSE(listening.Handles(SIGUSR2));
}

TEST(ChaosPlanTest, ASeedGivesTheSamePlanAgainAndSeedsCoverEverything) {
  int num_postgres = 0, num_kinds[5] = {};
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    const ChaosPlan plan = DrawPlan(seed), again = DrawPlan(seed);
    EXPECT_EQ(plan.on_postgres, again.on_postgres);
    ASSERT_EQ(plan.with_postgres.size(), again.with_postgres.size());
    num_postgres += plan.on_postgres ? 1 : 0;
    for (size_t i = 0; i < plan.with_postgres.size(); ++i) {
      EXPECT_EQ(plan.with_postgres[i].at, again.with_postgres[i].at);
      EXPECT_EQ(plan.with_postgres[i].kind, again.with_postgres[i].kind);
      ++num_kinds[static_cast<int>(plan.with_postgres[i].kind)];
    }
    for (const PlannedAction& action : plan.with_s3) ++num_kinds[static_cast<int>(action.kind)];
  }
  EXPECT_GT(num_postgres, 25);
  EXPECT_LT(num_postgres, 55);
  for (int i = 0; i < 5; ++i) EXPECT_GT(num_kinds[i], 10) << i;
}

}  // namespace
}  // namespace uniquanf
