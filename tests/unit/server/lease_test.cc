#include "tests/unit/server/core_fixture.h"

namespace uniquanf::server {
namespace {

class LeaseTest : public CoreTest {};

TEST_F(LeaseTest, AJobRunsFromPrepareToSuccess) {
  Create("a");
  Worker w = NewWorker("w");
  EXPECT_EQ(job("a").state, JobState::kQueued);
  ASSERT_EQ(Synchronize(&w).at(0).task, "prepare");
  EXPECT_EQ(job("a").state, JobState::kRunning);
  std::vector<Assignment> next = FinishAndSynchronize(&w);
  ASSERT_EQ(next.at(0).task, "layer-0000");
  EXPECT_EQ(next[0].plan_sha256, Sha256Hex("prepare"));
  next = FinishAndSynchronize(&w);
  ASSERT_EQ(next.at(0).task, "layer-0001");
  EXPECT_EQ(next[0].layer_sha256, std::vector<std::string>{Sha256Hex("layer-0000")});
  next = FinishAndSynchronize(&w);
  ASSERT_EQ(next.at(0).task, "finalize");
  EXPECT_EQ(next[0].layer_sha256.size(), 2u);
  EXPECT_TRUE(FinishAndSynchronize(&w).empty());
  EXPECT_EQ(job("a").state, JobState::kSucceeded);
  EXPECT_EQ(job("a").device, "cpu");
}

TEST_F(LeaseTest, ReportAfterExpiryIsRefused) {
  Create("a");
  Worker w = NewWorker("w");
  Synchronize(&w);
  Pass(absl::Seconds(11));
  EXPECT_EQ(task("a", "prepare").state, TaskState::kReady);
  Worker other = NewWorker("other");
  ASSERT_EQ(Synchronize(&other).size(), 1u);
  const std::string late = w.reports[0].lease_id;
  Succeed(&w.reports[0]);
  Call(&w);
  Hear(&w);
  EXPECT_EQ(actions_[late], LeaseAction::kLost);
  EXPECT_EQ(task("a", "prepare").state, TaskState::kLeased);
  EXPECT_EQ(task("a", "prepare").worker, "other");
  EXPECT_EQ(task("a", "prepare").attempt, 2);
}

TEST_F(LeaseTest, ReportUnderAnotherAttemptOrSessionIsRefused) {
  Create("a");
  Worker w = NewWorker("w");
  Synchronize(&w);
  Worker thief = NewWorker("thief");
  thief.reports = w.reports;
  Succeed(&thief.reports[0]);
  const std::string id = w.reports[0].lease_id;
  Synchronize(&thief);
  EXPECT_EQ(actions_[id], LeaseAction::kLost);
  w.reports[0].attempt = 7;
  Succeed(&w.reports[0]);
  Synchronize(&w);
  EXPECT_EQ(actions_[id], LeaseAction::kLost);
  EXPECT_EQ(task("a", "prepare").state, TaskState::kLeased);
}

// R17: everything else about a lease is public.
TEST_F(LeaseTest, ReportWithoutTheLeasesTokenIsRefused) {
  Create("a");
  Worker w = NewWorker("w");
  state_.token_key = "key";
  const Assignment assignment = Synchronize(&w).at(0);
  EXPECT_EQ(assignment.lease_token.size(), kLeaseTokenBytes);
  EXPECT_NE(assignment.lease_token, LeaseToken(state_, assignment.lease_id + "x"));
  EXPECT_EQ(task("a", "prepare").lease_token_sha256, Sha256Hex(assignment.lease_token))
      << "what is stored is no token";
  const LeaseReport honest = w.reports[0];
  for (const std::string& token : {std::string(), Sha256Hex("a guess"), assignment.lease_token}) {
    w.reports = {honest};
    w.reports[0].token_sha256 = token;
    Succeed(&w.reports[0]);
    Synchronize(&w);
    EXPECT_EQ(actions_[honest.lease_id], LeaseAction::kLost);
    EXPECT_EQ(task("a", "prepare").state, TaskState::kLeased);
  }
  w.reports = {honest};
  Succeed(&w.reports[0]);
  Synchronize(&w);
  EXPECT_EQ(actions_[honest.lease_id], LeaseAction::kAcknowledged);
}

TEST_F(LeaseTest, AnotherServersTokenHoldsAndOneThatNobodyHeardIsMadeAnew) {
  Create("a");
  Create("b");
  Worker w = NewWorker("w"), deaf = NewWorker("deaf");
  state_.token_key = "one process";
  const Assignment heard = Synchronize(&w).at(0);
  Call(&deaf);  // its reply is lost
  Restart();
  state_.token_key = "the next";
  EXPECT_TRUE(Synchronize(&w).empty());
  EXPECT_EQ(actions_[heard.lease_id], LeaseAction::kContinue);
  edits_ = {};
  const Assignment again = Synchronize(&deaf).at(0);
  EXPECT_EQ(again.lease_token, LeaseToken(state_, again.lease_id));
  EXPECT_EQ(edits_.tasks.size(), 1u) << "durable before it is told";
  Synchronize(&deaf);
  EXPECT_EQ(actions_[again.lease_id], LeaseAction::kContinue);
}

// Of a state from before there were tokens.
TEST_F(LeaseTest, ALeaseWithoutATokenGoesOnWithoutOne) {
  Create("a");
  Worker w = NewWorker("w");
  Synchronize(&w);
  state_.FindJob("a")->tasks[0].lease_token_sha256.clear();
  w.reports[0].token_sha256.clear();
  Synchronize(&w);
  EXPECT_EQ(actions_[w.reports[0].lease_id], LeaseAction::kContinue);
}

TEST_F(LeaseTest, RepeatedReportIsAcknowledgedAgain) {
  Create("a");
  Worker w = NewWorker("w");
  Synchronize(&w);
  Succeed(&w.reports[0]);
  const LeaseReport report = w.reports[0];
  Synchronize(&w);
  EXPECT_EQ(actions_[report.lease_id], LeaseAction::kAcknowledged);
  const int64_t version = job("a").version;
  w.reports.push_back(report);
  Synchronize(&w);
  EXPECT_EQ(actions_[report.lease_id], LeaseAction::kAcknowledged);
  EXPECT_EQ(job("a").version, version);
}

TEST_F(LeaseTest, OlderRequestIsIgnored) {
  Create("a");
  Worker w = NewWorker("w");
  Call(&w);
  Call(&w);
  w.sequence = 0;
  EXPECT_EQ(ErrorReason(Call(&w).status), "STALE_REQUEST");
}

TEST_F(LeaseTest, AssignmentOfALostReplyIsSentAgainAndTakesItsSlot) {
  Create("a");
  Create("b");
  Worker w = NewWorker("w");
  Call(&w);  // the reply is lost
  const std::vector<Assignment> again = Synchronize(&w);
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].attempt, 1);
}

TEST_F(LeaseTest, ALeaseNeverReportedRunsOutAlthoughItsSessionCalls) {
  Create("a");
  Worker w = NewWorker("w");
  for (int i = 0; i < 60 && task("a", "prepare").failures.empty(); ++i) {
    Call(&w);
    Pass(absl::Seconds(1));
  }
  EXPECT_EQ(task("a", "prepare").failures.at(0).reason, "LEASE_EXPIRED");
}

TEST_F(LeaseTest, AnAssignmentIsNotSentAgainUnderALeaseThatIsNotRenewed) {
  Create("a");
  Worker w = NewWorker("w");
  for (int i = 0; i < 60 && task("a", "prepare").failures.empty(); ++i) {
    Call(&w);
    // Whoever hears this trusts the lease for its whole length from here on.
    if (!BuildReply(state_, w.session).assignments.empty()) {
      EXPECT_EQ(task("a", "prepare").lease_expiry, mono_ + policy_.lease_duration);
    }
    Pass(absl::Seconds(1));
  }
  EXPECT_EQ(task("a", "prepare").failures.at(0).reason, "LEASE_EXPIRED");
}

TEST_F(LeaseTest, RunningReportsRenew) {
  Create("a");
  Worker w = NewWorker("w");
  Synchronize(&w);
  for (int i = 0; i < 10; ++i) {
    Pass(absl::Seconds(8));
    Synchronize(&w);
  }
  EXPECT_EQ(task("a", "prepare").attempt, 1);
  EXPECT_EQ(task("a", "prepare").state, TaskState::kLeased);
}

TEST_F(LeaseTest, AServerThatStoodStillEndsNoLease) {
  Create("a");
  Worker w = NewWorker("w");
  Do(TickEvent{});
  Synchronize(&w);
  mono_ += absl::Minutes(10);
  Do(TickEvent{});
  Synchronize(&w);
  EXPECT_EQ(task("a", "prepare").attempt, 1);
  EXPECT_EQ(task("a", "prepare").state, TaskState::kLeased);
}

TEST_F(LeaseTest, ARestartedWorkersTasksGoBackBeforeTheirLeasesRunOut) {
  Create("a");
  Worker w = NewWorker("w");
  Synchronize(&w);
  Pass(absl::Seconds(4));
  Worker again = NewWorker("w");
  ASSERT_EQ(Synchronize(&again).size(), 1u);
  EXPECT_EQ(task("a", "prepare").attempt, 2);
  EXPECT_EQ(task("a", "prepare").failures.at(0).reason, "WORKER_RESTARTED");
}

TEST_F(LeaseTest, AHangingTaskIsTakenAwayAlthoughItsWorkerCalls) {
  policy_.stall_timeout = absl::Seconds(30);
  Start(Policy(policy_));
  Create("a");
  Worker w = NewWorker("w");
  Synchronize(&w);
  const std::string id = w.reports[0].lease_id;
  for (int i = 0; i < 7; ++i) {
    Pass(absl::Seconds(5));
    Synchronize(&w);
  }
  EXPECT_EQ(task("a", "prepare").failures.at(0).reason, "TASK_STALLED");
}

TEST_F(LeaseTest, CancelTellsTheWorkerToStopAndEndsWhenItHas) {
  Create("a");
  Worker w = NewWorker("w");
  Synchronize(&w);
  const std::string id = w.reports[0].lease_id;
  EXPECT_TRUE(Call(&w, /*may_wait=*/true).parked);
  edits_ = {};
  Do(CancelJobEvent{"a"});
  EXPECT_EQ(edits_.wake.count(w.session), 1u);  // at once
  Hear(&w);
  EXPECT_EQ(actions_[id], LeaseAction::kStop);
  EXPECT_EQ(job("a").state, JobState::kCancelling);
  w.reports[0].kind = LeaseReport::Kind::kReleased;
  Synchronize(&w);
  EXPECT_EQ(actions_[id], LeaseAction::kAcknowledged);
  EXPECT_EQ(job("a").state, JobState::kCancelled);
}

TEST_F(LeaseTest, CancelOfAWorkerThatDoesNotStopEndsWithTheLease) {
  Create("a");
  Worker w = NewWorker("w");
  Synchronize(&w);
  Do(CancelJobEvent{"a"});
  for (int i = 0; i < 12; ++i) {
    Call(&w);
    Pass(absl::Seconds(1));
  }
  EXPECT_EQ(job("a").state, JobState::kCancelled);
}

TEST_F(LeaseTest, RetryKeepsFinishedTasks) {
  Create("a");
  Worker w = NewWorker("w");
  Synchronize(&w);
  FinishAndSynchronize(&w);
  Fail(&w.reports[0], FailureClass::kInvalidInput);
  Synchronize(&w);
  ASSERT_EQ(job("a").state, JobState::kFailed);
  EXPECT_EQ(job("a").error->reason, "REASON");
  EXPECT_EQ(job("a").error->task, "layer-0000");
  Do(RetryJobEvent{"a"});
  EXPECT_EQ(task("a", "prepare").state, TaskState::kSucceeded);
  ASSERT_EQ(Synchronize(&w).at(0).task, "layer-0000");
  FinishAndSynchronize(&w);
  FinishAndSynchronize(&w);
  FinishAndSynchronize(&w);
  EXPECT_EQ(job("a").state, JobState::kSucceeded);
}

struct RetryCase {
  FailureClass failure_class;
  int num_failures;  // until the job fails
};
class RetryTest : public LeaseTest, public ::testing::WithParamInterface<RetryCase> {};

TEST_P(RetryTest, IsBoundedByClass) {
  Create("a");
  Worker w = NewWorker("w");
  for (int i = 1; i <= GetParam().num_failures; ++i) {
    ASSERT_EQ(job("a").state, i == 1 ? JobState::kQueued : JobState::kRunning) << i;
    ASSERT_EQ(Synchronize(&w).size(), 1u) << i;
    Fail(&w.reports[0], GetParam().failure_class);
    Synchronize(&w);
    w.capabilities.memory_bytes *= 2;
    Pass(absl::Minutes(3));
  }
  EXPECT_EQ(job("a").state, JobState::kFailed);
  EXPECT_EQ(task("a", "prepare").attempt, GetParam().num_failures);
}
INSTANTIATE_TEST_SUITE_P(Classes, RetryTest,
                         ::testing::Values(RetryCase{FailureClass::kInvalidInput, 1},
                                           RetryCase{FailureClass::kInternal, 2},
                                           RetryCase{FailureClass::kOutOfMemory, 2},
                                           RetryCase{FailureClass::kTransient, 8}));

TEST_F(LeaseTest, CrashLoopIsBounded) {
  Create("a");
  for (int i = 0; i < policy_.max_worker_lost; ++i) {
    Pass(absl::Minutes(3));
    Worker w = NewWorker(absl::StrCat("w", i));
    ASSERT_EQ(Synchronize(&w).size(), 1u) << i;
    Pass(absl::Seconds(11));
  }
  EXPECT_EQ(job("a").state, JobState::kFailed);
  EXPECT_EQ(job("a").error->reason, "LEASE_EXPIRED");
}

TEST_F(LeaseTest, OutOfMemoryIsRetriedOnlyWithMoreMemory) {
  Create("a");
  Worker small = NewWorker("small");
  Synchronize(&small);
  Fail(&small.reports[0], FailureClass::kOutOfMemory);
  EXPECT_TRUE(Synchronize(&small).empty());
  Pass(absl::Seconds(10));
  EXPECT_NE(job("a").status_message.find("memory"), std::string::npos) << job("a").status_message;
  Worker large = NewWorker("large");
  large.capabilities.memory_bytes *= 2;
  EXPECT_EQ(Synchronize(&large).size(), 1u);
  EXPECT_EQ(job("a").status_message, "");
}

TEST_F(LeaseTest, TransientFailureWaitsBeforeTheNextAttempt) {
  Create("a");
  Worker w = NewWorker("w");
  Synchronize(&w);
  Fail(&w.reports[0], FailureClass::kTransient);
  EXPECT_TRUE(Synchronize(&w).empty());
  EXPECT_TRUE(task("a", "prepare").next_attempt_time.has_value());
  EXPECT_TRUE(Call(&w, true).parked);
  edits_ = {};
  Pass(absl::Seconds(2));
  EXPECT_EQ(edits_.wake.count(w.session), 1u);
  EXPECT_EQ(Hear(&w).size(), 1u);
}

TEST_F(LeaseTest, NonsenseOutcomeIsAFailureOfThatWorker) {
  Create("a");
  Worker w = NewWorker("w");
  Synchronize(&w);
  Succeed(&w.reports[0], /*num_layers=*/0);
  Synchronize(&w);
  EXPECT_EQ(task("a", "prepare").failures.at(0).reason, "MALFORMED_OUTCOME");
}

TEST_F(LeaseTest, DrainedWorkerGetsNothingNewAndItsReleaseIsNoFailure) {
  Create("a");
  Worker w = NewWorker("w");
  Synchronize(&w);
  Do(DrainWorkerEvent{"w", true});
  EXPECT_TRUE(BuildReply(state_, w.session).drain);
  w.draining = true;
  w.reports[0].kind = LeaseReport::Kind::kReleased;
  EXPECT_TRUE(Synchronize(&w).empty());
  EXPECT_TRUE(task("a", "prepare").failures.empty());
  Worker other = NewWorker("other");
  EXPECT_EQ(Synchronize(&other).size(), 1u);
}

TEST_F(LeaseTest, LeasesSurviveARestartForOneLease) {
  Create("a");
  Create("b");
  Worker alive = NewWorker("alive"), dead = NewWorker("dead");
  Synchronize(&alive);
  Synchronize(&dead);
  StoredState stored;
  for (const auto& [seq, entry] : state_.jobs) {
    stored.jobs.push_back(entry.job);
    for (size_t i = 0; i < entry.tasks.size(); ++i) {
      stored.tasks.push_back({{seq, static_cast<int32_t>(i)}, entry.tasks[i]});
    }
  }
  const int64_t version = job("a").version;
  state_ = *Rebuild(policy_, stored, 2, 1, now());
  EXPECT_GT(job("a").version, version);
  Pass(absl::Seconds(5));
  Synchronize(&alive);
  EXPECT_EQ(actions_[alive.reports.at(0).lease_id], LeaseAction::kContinue);
  Pass(absl::Seconds(6));
  EXPECT_EQ(task("a", "prepare").state, TaskState::kLeased);
  EXPECT_EQ(task("b", "prepare").state, TaskState::kReady);
}

TEST_F(LeaseTest, WorkingObjectsAreGarbageOnceTheArtifactIsPublishedAndNotBefore) {
  Create("a");
  Create("b");
  const std::string a = job("a").uid, b = job("b").uid;
  Worker w = NewWorker("w");
  Synchronize(&w);
  while (job("a").state != JobState::kSucceeded) {
    EXPECT_TRUE(state_.garbage.empty());
    FinishAndSynchronize(&w);
  }
  EXPECT_EQ(state_.garbage, std::set<std::string>{a});
  EXPECT_EQ(edits_.garbage_added.count(a), 1u);
  // One that failed may be retried, and then needs them.
  ASSERT_TRUE(Do(CancelJobEvent{"b"}).status.ok());
  Pass(policy_.lease_duration + absl::Seconds(1));
  ASSERT_EQ(job("b").state, JobState::kCancelled);
  EXPECT_EQ(state_.garbage.count(b), 0u);
  Do(GarbageCollectedEvent{a});
  EXPECT_TRUE(state_.garbage.empty());
  ASSERT_TRUE(Do(DeleteJobEvent{"b"}).status.ok());
  EXPECT_EQ(state_.garbage, std::set<std::string>{b});
}

TEST_F(LeaseTest, JobsWithoutATimeToLiveHaveTheServersDefault) {
  policy_.default_time_to_live = absl::Seconds(5);
  Start(Policy(policy_));
  Create("default");
  CreateJobEvent own;
  own.job.id = "own";
  own.job.uid = "u";
  own.job.tenant = "t";
  own.job.time_to_live = absl::Seconds(50);
  Do(own);
  ASSERT_TRUE(Do(CancelJobEvent{"default"}).status.ok());
  ASSERT_TRUE(Do(CancelJobEvent{"own"}).status.ok());
  Pass(absl::Seconds(6));
  EXPECT_EQ(state_.FindJob("default"), nullptr);
  EXPECT_NE(state_.FindJob("own"), nullptr);
  Pass(absl::Seconds(50));
  EXPECT_EQ(state_.FindJob("own"), nullptr);
}

TEST_F(LeaseTest, DeadlineFailsTheJobAndTimeToLiveDeletesIt) {
  CreateJobEvent event;
  event.job.id = "a";
  event.job.uid = "u";
  event.job.tenant = "t";
  event.job.deadline = now().wall + absl::Seconds(5);
  event.job.time_to_live = absl::Seconds(5);
  Do(event);
  Worker w = NewWorker("w");
  Synchronize(&w);
  Pass(absl::Seconds(6));
  ASSERT_EQ(job("a").state, JobState::kFailed);
  EXPECT_EQ(job("a").error->reason, "DEADLINE");
  const std::string id = w.reports[0].lease_id;
  Synchronize(&w);
  EXPECT_EQ(actions_[id], LeaseAction::kLost);
  Pass(absl::Seconds(6));
  EXPECT_EQ(state_.FindJob("a"), nullptr);
  EXPECT_EQ(edits_.garbage_added.count("u"), 1u);
}

}  // namespace
}  // namespace uniquanf::server
