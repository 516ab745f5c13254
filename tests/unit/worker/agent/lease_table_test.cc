#include "worker/agent/lease_table.h"

#include <random>
#include <set>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/rpc/time_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace uniquanf {
namespace {

using Directive = v1::LeaseDirective;
using Report = v1::LeaseReport;

constexpr absl::Duration kLease = absl::Seconds(30);

v1::TaskAssignment Assignment(const std::string& id) {
  v1::TaskAssignment assignment;
  assignment.set_lease_id(id);
  assignment.set_attempt(3);
  assignment.set_task("jobs/j/tasks/" + id);
  *assignment.mutable_lease_duration() = DurationToProto(kLease);
  return assignment;
}

v1::SynchronizeResponse Assign(const std::vector<std::string>& ids) {
  v1::SynchronizeResponse reply;
  for (const std::string& id : ids) *reply.add_assignments() = Assignment(id);
  return reply;
}

v1::SynchronizeResponse Direct(const std::string& id, Directive::Action action) {
  v1::SynchronizeResponse reply;
  reply.add_directives()->set_lease_id(id);
  reply.mutable_directives(0)->set_action(action);
  return reply;
}

v1::TaskOutcome Outcome() {
  v1::TaskOutcome outcome;
  outcome.set_result_sha256("abc");
  return outcome;
}

// What the table reports of `id`; STATUS_NOT_SET when it holds no such lease.
Report::StatusCase Reported(const LeaseTable& table, const std::string& id) {
  v1::SynchronizeRequest request;
  table.FillReports(&request);
  for (const Report& report : request.leases()) {
    if (report.lease_id() != id) continue;
    EXPECT_EQ(report.attempt(), 3);
    EXPECT_EQ(report.task(), "jobs/j/tasks/" + id);
    return report.status_case();
  }
  return Report::STATUS_NOT_SET;
}

enum class State { kRunning, kStopping, kSucceeded, kFailed, kReleased };

// A table with one slot and lease "a" in `state`, at time 0 and after sequence 10.
LeaseTable TableIn(State state) {
  LeaseTable table({.num_slots = 1});
  table.ApplyReply(Assign({"a"}), 9, absl::ZeroDuration(), absl::ZeroDuration());
  switch (state) {
    case State::kRunning:
      break;
    case State::kStopping:
      table.ApplyReply(Direct("a", Directive::STOP), 10, absl::ZeroDuration(),
                       absl::ZeroDuration());
      break;
    case State::kSucceeded:
      table.OnFinished(0, Outcome());
      break;
    case State::kFailed:
      table.OnFinished(0, InvalidInput("TENSOR_SHAPE", "bad"));
      break;
    case State::kReleased:
      table.StopAll(absl::ZeroDuration());
      table.OnFinished(0, absl::CancelledError());
      break;
  }
  return table;
}

TEST(LeaseTableTest, EveryStateAnswersEveryDirective) {
  const auto kGone = Report::STATUS_NOT_SET;
  const struct {
    State state;
    Directive::Action action;
    Report::StatusCase reported;
    bool stops;  // the reply stops the slot
    bool busy;   // the slot is busy afterwards
  } rows[] = {
      {State::kRunning, Directive::CONTINUE, Report::kRunning, false, true},
      {State::kRunning, Directive::STOP, Report::kRunning, true, true},
      {State::kRunning, Directive::ACKNOWLEDGED, kGone, true, true},
      {State::kRunning, Directive::LOST, kGone, true, true},
      {State::kRunning, Directive::ACTION_UNSPECIFIED, Report::kRunning, false, true},
      {State::kStopping, Directive::CONTINUE, Report::kRunning, false, true},
      {State::kStopping, Directive::STOP, Report::kRunning, false, true},
      {State::kStopping, Directive::ACKNOWLEDGED, kGone, false, true},
      {State::kStopping, Directive::LOST, kGone, false, true},
      {State::kStopping, Directive::ACTION_UNSPECIFIED, Report::kRunning, false, true},
      {State::kSucceeded, Directive::CONTINUE, Report::kSucceeded, false, false},
      {State::kSucceeded, Directive::STOP, Report::kReleased, false, false},
      {State::kSucceeded, Directive::ACKNOWLEDGED, kGone, false, false},
      {State::kSucceeded, Directive::LOST, kGone, false, false},
      {State::kSucceeded, Directive::ACTION_UNSPECIFIED, Report::kSucceeded, false, false},
      {State::kFailed, Directive::CONTINUE, Report::kFailed, false, false},
      {State::kFailed, Directive::STOP, Report::kReleased, false, false},
      {State::kFailed, Directive::ACKNOWLEDGED, kGone, false, false},
      {State::kFailed, Directive::LOST, kGone, false, false},
      {State::kFailed, Directive::ACTION_UNSPECIFIED, Report::kFailed, false, false},
      {State::kReleased, Directive::CONTINUE, Report::kReleased, false, false},
      {State::kReleased, Directive::STOP, Report::kReleased, false, false},
      {State::kReleased, Directive::ACKNOWLEDGED, kGone, false, false},
      {State::kReleased, Directive::LOST, kGone, false, false},
      {State::kReleased, Directive::ACTION_UNSPECIFIED, Report::kReleased, false, false},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(testing::Message() << "state " << static_cast<int>(row.state) << ", directive "
                                    << Directive::Action_Name(row.action));
    LeaseTable table = TableIn(row.state);
    const Orders orders =
        table.ApplyReply(Direct("a", row.action), 11, absl::Seconds(1), absl::Seconds(1));
    EXPECT_EQ(Reported(table, "a"), row.reported);
    EXPECT_EQ(orders.stop.size(), row.stops ? 1u : 0u);
    EXPECT_EQ(table.num_running(), row.busy ? 1 : 0);
    EXPECT_TRUE(orders.start.empty());
  }
}

TEST(LeaseTableTest, TheTasksReturnIsReportedAsWhatItMeansInEachState) {
  const auto kGone = Report::STATUS_NOT_SET;
  const absl::Status cancelled = absl::CancelledError();
  const absl::Status broken = InvalidInput("TENSOR_SHAPE", "bad");
  struct Row {
    const char* before;  // what happened to the lease while the task ran
    absl::StatusOr<v1::TaskOutcome> result;
    Report::StatusCase reported;
  };
  const std::vector<Row> rows = {
      {"nothing", Outcome(), Report::kSucceeded},
      {"nothing", broken, Report::kFailed},
      {"nothing", cancelled, Report::kFailed},
      {"stop", Outcome(), Report::kSucceeded},
      {"stop", broken, Report::kFailed},
      {"stop", cancelled, Report::kReleased},
      {"drain", Outcome(), Report::kSucceeded},
      {"drain", cancelled, Report::kReleased},
      {"expired", Outcome(), Report::kReleased},
      {"expired", broken, Report::kReleased},
      {"expired", cancelled, Report::kReleased},
      {"lost", Outcome(), kGone},
      {"lost", cancelled, kGone},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(testing::Message() << row.before << ", " << row.result.status());
    LeaseTable table = TableIn(State::kRunning);
    const std::string before = row.before;
    if (before == "stop") {
      table.ApplyReply(Direct("a", Directive::STOP), 11, absl::Seconds(1), absl::Seconds(1));
    } else if (before == "drain") {
      table.StopAll(absl::Seconds(1));
    } else if (before == "expired") {
      EXPECT_THAT(table.ApplyTime(kLease).stop, testing::ElementsAre(0));
      EXPECT_EQ(table.num_leases_expired(), 1);
    } else if (before == "lost") {
      table.ApplyReply(Direct("a", Directive::LOST), 11, absl::Seconds(1), absl::Seconds(1));
    }
    table.OnFinished(0, row.result);
    EXPECT_EQ(Reported(table, "a"), row.reported);
    EXPECT_EQ(table.num_free_slots(), 1);
  }
}

TEST(LeaseTableTest, ALeaseIsRenewedFromBeforeItsCallWasSent) {
  LeaseTable table({.num_slots = 1});
  // The reply took 9 s: the lease counts from the sending.
  table.ApplyReply(Assign({"a"}), 1, absl::Seconds(100), absl::Seconds(109));
  EXPECT_TRUE(table.ApplyTime(absl::Seconds(129.9)).stop.empty());
  table.ApplyReply(Direct("a", Directive::CONTINUE), 2, absl::Seconds(110), absl::Seconds(129.9));
  EXPECT_TRUE(table.ApplyTime(absl::Seconds(139.9)).stop.empty());
  EXPECT_THAT(table.ApplyTime(absl::Seconds(140)).stop, testing::ElementsAre(0));
  EXPECT_TRUE(table.ApplyTime(absl::Seconds(141)).stop.empty()) << "stopped once";
}

TEST(LeaseTableTest, AResultThatWasCompleteInTimeIsReportedAfterTheLeaseHasRunOut) {
  LeaseTable table = TableIn(State::kSucceeded);
  EXPECT_TRUE(table.ApplyTime(kLease * 10).stop.empty());
  EXPECT_EQ(Reported(table, "a"), Report::kSucceeded);
}

TEST(LeaseTableTest, RepliesToOlderRequestsAreIgnored) {
  LeaseTable table({.num_slots = 1});
  table.ApplyReply(Assign({"a"}), 5, absl::ZeroDuration(), absl::ZeroDuration());
  table.ApplyReply(Direct("a", Directive::LOST), 4, absl::ZeroDuration(), absl::ZeroDuration());
  table.ApplyReply(Direct("a", Directive::LOST), 5, absl::ZeroDuration(), absl::ZeroDuration());
  EXPECT_EQ(Reported(table, "a"), Report::kRunning);
}

TEST(LeaseTableTest, ARepeatedAssignmentStartsOnce) {
  LeaseTable table({.num_slots = 2});
  EXPECT_EQ(table.ApplyReply(Assign({"a"}), 1, {}, {}).start.size(), 1u);
  EXPECT_EQ(table.ApplyReply(Assign({"a"}), 2, {}, {}).start.size(), 0u);
  table.OnFinished(0, Outcome());
  table.ApplyReply(Direct("a", Directive::ACKNOWLEDGED), 3, {}, {});
  EXPECT_EQ(table.ApplyReply(Assign({"a"}), 4, {}, {}).start.size(), 0u) << "it is over";
  EXPECT_FALSE(table.holds_leases());
}

TEST(LeaseTableTest, AssignmentsThatCannotRunAreGivenBack) {
  LeaseTable table({.num_slots = 1});
  EXPECT_EQ(table.ApplyReply(Assign({"a", "b"}), 1, {}, {}).start.size(), 1u);
  EXPECT_EQ(Reported(table, "a"), Report::kRunning);
  EXPECT_EQ(Reported(table, "b"), Report::kReleased);
  table.SetDraining();
  EXPECT_EQ(table.num_free_slots(), 0);
  table.ApplyReply(Assign({"c"}), 2, {}, {});
  EXPECT_EQ(Reported(table, "c"), Report::kReleased);
}

TEST(LeaseTableTest, AnAssignmentThatArrivesAfterItsLeaseHasRunOutIsGivenBack) {
  LeaseTable table({.num_slots = 1});
  EXPECT_TRUE(table.ApplyReply(Assign({"a"}), 1, absl::ZeroDuration(), kLease).start.empty());
  EXPECT_EQ(Reported(table, "a"), Report::kReleased);
}

TEST(LeaseTableTest, AnAssignmentWithoutLeaseDurationFailsAsABug) {
  v1::SynchronizeResponse reply = Assign({"a"});
  reply.mutable_assignments(0)->clear_lease_duration();
  LeaseTable table({.num_slots = 1});
  EXPECT_TRUE(table.ApplyReply(reply, 1, {}, {}).start.empty());
  EXPECT_EQ(Reported(table, "a"), Report::kFailed);
}

TEST(LeaseTableTest, ATaskWithoutProgressIsReportedAsStalledAndTheProcessIsToRestart) {
  LeaseTable table({.num_slots = 2, .stall_timeout = absl::Seconds(10)});
  table.ApplyReply(Assign({"a", "b"}), 1, {}, {});
  table.OnProgress(0, {}, absl::Seconds(5));
  table.OnProgress(1, {}, absl::Seconds(9));
  table.ApplyReply(Direct("a", Directive::CONTINUE), 2, absl::Seconds(9), absl::Seconds(9));
  EXPECT_TRUE(table.ApplyTime(absl::Seconds(14.9)).stop.empty());
  EXPECT_THAT(table.ApplyTime(absl::Seconds(15)).stop, testing::ElementsAre(0));
  EXPECT_TRUE(table.restart_wanted());
  EXPECT_EQ(table.num_free_slots(), 0);
  v1::SynchronizeRequest request;
  table.FillReports(&request);
  ASSERT_EQ(request.leases_size(), 2);
  EXPECT_EQ(request.leases(0).failed().reason(), "TASK_STALLED");
  EXPECT_EQ(request.leases(0).failed().failure_class(), v1::TRANSIENT);
  EXPECT_TRUE(request.leases(1).has_running()) << "the other slot goes on";
  EXPECT_TRUE(request.draining());
  // Coming to life again changes nothing: the report is out.
  table.OnFinished(0, Outcome());
  EXPECT_EQ(Reported(table, "a"), Report::kFailed);
}

TEST(LeaseTableTest, ATaskThatDoesNotStopIsReleasedAndTheProcessIsToRestart) {
  LeaseTable table({.num_slots = 1, .stop_timeout = absl::Seconds(5)});
  table.ApplyReply(Assign({"a"}), 1, {}, {});
  table.ApplyReply(Direct("a", Directive::STOP), 2, absl::Seconds(1), absl::Seconds(1));
  EXPECT_TRUE(table.is_stopping());
  table.ApplyTime(absl::Seconds(6));
  EXPECT_EQ(Reported(table, "a"), Report::kReleased);
  EXPECT_TRUE(table.restart_wanted());
  EXPECT_FALSE(table.is_stopping()) << "nobody waits for it any more";
}

TEST(LeaseTableTest, ABrokenDeviceAsksForARestart) {
  LeaseTable table = TableIn(State::kRunning);
  table.OnFinished(0, MakeError(absl::StatusCode::kInternal, "DEVICE_ERROR", "fell off the bus"));
  EXPECT_EQ(Reported(table, "a"), Report::kFailed);
  EXPECT_TRUE(table.restart_wanted());
}

// Random events in any order; checks what must hold whatever the server and the tasks do.
TEST(LeaseTableTest, RandomEventsKeepTheInvariants) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    const int num_slots = 1 + static_cast<int>(random() % 3);
    LeaseTable table({.num_slots = num_slots,
                      .stall_timeout = absl::Seconds(200),
                      .stop_timeout = absl::Seconds(100)});
    std::set<int> busy;
    std::set<std::string> started;
    absl::Duration now, sent_at;
    int64_t sequence = 0;
    int next_id = 0;
    const auto follow = [&](const Orders& orders) {
      for (const Orders::Start& start : orders.start) {
        EXPECT_TRUE(busy.insert(start.slot).second) << "two tasks in one slot";
        EXPECT_TRUE(started.insert(start.assignment.lease_id()).second) << "one lease twice";
        EXPECT_FALSE(table.draining());
      }
      for (const int slot : orders.stop) EXPECT_EQ(busy.count(slot), 1u);
    };
    for (int step = 0; step < 400; ++step) {
      now += absl::Milliseconds(random() % 4000);
      switch (random() % 6) {
        case 0: {
          v1::SynchronizeRequest request;
          table.FillReports(&request);
          v1::SynchronizeResponse reply;
          for (const Report& report : request.leases()) {
            v1::LeaseDirective* directive = reply.add_directives();
            directive->set_lease_id(report.lease_id());
            directive->set_action(static_cast<Directive::Action>(random() % 5));
          }
          for (uint64_t i = random() % 3; i > 0; --i) {
            const bool old = random() % 3 == 0 && next_id > 0;
            const int id =
                old ? static_cast<int>(random() % static_cast<uint64_t>(next_id)) : next_id++;
            *reply.add_assignments() = Assignment("l" + std::to_string(id));
          }
          // Sometimes a reply from the past.
          const int64_t answered = random() % 4 == 0 ? sequence : ++sequence;
          follow(table.ApplyReply(reply, answered, sent_at, now));
          sent_at = now;
          break;
        }
        case 1:
          if (!busy.empty()) {
            const int slot = *busy.begin();
            busy.erase(slot);
            switch (random() % 3) {
              case 0:
                table.OnFinished(slot, Outcome());
                break;
              case 1:
                table.OnFinished(slot, absl::CancelledError());
                break;
              default:
                table.OnFinished(slot, absl::UnavailableError("storage"));
            }
          }
          break;
        case 2:
          for (const int slot : busy) table.OnProgress(slot, {}, now);
          break;
        case 3:
          if (random() % 40 == 0) table.SetDraining();
          if (random() % 40 == 0) follow(table.StopAll(now));
          break;
        default:
          follow(table.ApplyTime(now));
      }
      EXPECT_EQ(table.num_running(), static_cast<int>(busy.size()));
      v1::SynchronizeRequest request;
      table.FillReports(&request);
      int num_running_reports = 0;
      for (const Report& report : request.leases()) {
        EXPECT_NE(report.status_case(), Report::STATUS_NOT_SET);
        num_running_reports += report.has_running() ? 1 : 0;
      }
      EXPECT_LE(num_running_reports, table.num_running());
      EXPECT_LE(table.num_free_slots() + table.num_running(), num_slots);
    }
  }
}

}  // namespace
}  // namespace uniquanf
