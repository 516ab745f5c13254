// The conformance suite on a real PostgreSQL server, and what only PostgreSQL does: standbys,
// fences, lost sessions, a database that dies.
#include <libpq-fe.h>

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "tests/support/child_process.h"
#include "tests/support/postgres_server.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/server/job_store_conformance.h"
#include "tests/unit/server/state_0_1_0.h"

namespace uniquanf::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

PostgresServer* postgres = nullptr;

struct PostgresFactory {
  const std::string uri = postgres->NewState();
  std::unique_ptr<JobStore> New() { return *NewPostgresStore(uri); }
};
INSTANTIATE_TYPED_TEST_SUITE_P(Postgres, JobStoreConformance, PostgresFactory);

class PostgresStoreTest : public ::testing::Test {
 protected:
  std::unique_ptr<JobStore> New() { return *NewJobStore(state_); }
  WriteBatch Batch(uint64_t epoch, uint64_t sequence) {
    WriteBatch batch;
    batch.epoch = epoch;
    batch.expected_sequence = sequence;
    batch.jobs = {SampleJob(1, "a")};
    return batch;
  }
  // The sessions of all stores end, as when a network breaks.
  void CutSessions() {
    postgres->Sql(state_,
                  "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = "
                  "'uniquanf-server'");
  }
  // The lock falls free while its holder goes on, as behind a pooler or after a lost session.
  void TakeOverWithoutTheLock() {
    postgres->Sql(state_, "UPDATE uniquanf_meta SET epoch = epoch + 1");
  }

  const std::string state_ = postgres->NewState();
};

TEST_F(PostgresStoreTest, ASecondServerStandsByUntilTheFirstIsGone) {
  auto first = New(), second = New();
  ASSERT_OK(first->Open());
  EXPECT_THAT(second->Open(), FailsWith(absl::StatusCode::kUnavailable, "NOT_ACTIVE"));
  EXPECT_THAT(second->Open(), FailsWith(absl::StatusCode::kUnavailable, "NOT_ACTIVE"));
  first.reset();
  EXPECT_OK(second->Open());
}

TEST_F(PostgresStoreTest, StatesInOneDatabaseAreIndependent) {
  auto first = New();
  ASSERT_OK(first->Open());
  auto other = *NewJobStore(postgres->NewState());
  EXPECT_OK(other->Open());
}

TEST_F(PostgresStoreTest, AServerWhoseSessionWasCutIsReplacedAndCannotWrite) {
  auto first = New(), second = New();
  const uint64_t old_epoch = *first->Open();
  ASSERT_OK(first->Commit(Batch(old_epoch, 0)));
  CutSessions();
  ASSERT_TRUE(WaitUntil([&] { return second->Open().ok(); }, absl::Seconds(5)));
  EXPECT_THAT(first->CheckActive(old_epoch),
              FailsWith(absl::StatusCode::kUnavailable, "STATE_UNAVAILABLE"));
  EXPECT_THAT(first->Commit(Batch(old_epoch, 1)),
              FailsWith(absl::StatusCode::kUnavailable, "STATE_UNAVAILABLE"));
  EXPECT_THAT(first->Open(), FailsWith(absl::StatusCode::kUnavailable, "NOT_ACTIVE"));
  EXPECT_EQ(second->Load()->sequence, 1u);
}

TEST_F(PostgresStoreTest, TheEpochFencesEvenASessionThatStillHoldsTheLock) {
  auto deposed = New();
  const uint64_t epoch = *deposed->Open();
  ASSERT_OK(deposed->CheckActive(epoch));
  TakeOverWithoutTheLock();
  WriteBatch batch = Batch(epoch, 0);
  batch.tasks = {{{1, 0}, SampleTask("x")}};
  batch.garbage = {"g"};
  EXPECT_THAT(deposed->Commit(batch), FailsWith(absl::StatusCode::kAborted, "STORE_FENCED"));
  EXPECT_THAT(deposed->CheckActive(epoch), FailsWith(absl::StatusCode::kAborted, "STORE_FENCED"));
  const auto loaded = deposed->Load();
  ASSERT_OK(loaded);
  EXPECT_EQ(loaded->sequence, 0u);
  EXPECT_TRUE(loaded->state.jobs.empty());
  EXPECT_TRUE(loaded->state.tasks.empty());
  EXPECT_TRUE(loaded->state.garbage.empty());
}

TEST_F(PostgresStoreTest, AFailedStatementUndoesTheWholeBatch) {
  auto store = New();
  const uint64_t epoch = *store->Open();
  postgres->Sql(state_, "ALTER TABLE uniquanf_garbage ADD CHECK (uid <> 'refused')");
  WriteBatch batch = Batch(epoch, 0);
  batch.garbage = {"refused"};
  EXPECT_THAT(store->Commit(batch), FailsWith(absl::StatusCode::kUnavailable, "STATE_UNAVAILABLE"));
  const auto again = store->Open();
  ASSERT_OK(again);
  EXPECT_EQ(store->Load()->sequence, 0u);
  EXPECT_TRUE(store->Load()->state.jobs.empty());
  EXPECT_OK(store->Commit(Batch(*again, 0)));
}

TEST_F(PostgresStoreTest, WhatWasCommittedSurvivesADatabaseThatIsKilled) {
  auto store = New();
  uint64_t epoch = *store->Open();
  for (uint64_t i = 0; i < 20; ++i) ASSERT_OK(store->Commit(Batch(epoch, i)));
  ASSERT_TRUE(postgres->Crash());
  EXPECT_THAT(store->Commit(Batch(epoch, 20)),
              FailsWith(absl::StatusCode::kUnavailable, "STATE_UNAVAILABLE"));
  EXPECT_THAT(store->Open(), FailsWith(absl::StatusCode::kUnavailable, "STATE_UNAVAILABLE"));
  ASSERT_TRUE(postgres->Restart());
  absl::StatusOr<uint64_t> reopened;
  ASSERT_TRUE(WaitUntil([&] { return (reopened = store->Open()).ok(); }, absl::Seconds(10)));
  EXPECT_GT(*reopened, epoch);
  EXPECT_EQ(store->Load()->sequence, 20u);
  EXPECT_OK(store->Commit(Batch(*reopened, 20)));
}

TEST_F(PostgresStoreTest, ABatchLargerThanAnySocketBufferIsWritten) {
  auto store = New();
  WriteBatch batch = Batch(*store->Open(), 0);
  batch.jobs.clear();
  for (uint64_t seq = 1; seq <= 50; ++seq) {
    batch.jobs.push_back(SampleJob(seq, absl::StrCat("job-", seq)));
    batch.jobs.back().spec = std::string(1 << 20, static_cast<char>(seq));
  }
  ASSERT_OK(store->Commit(batch));
  const auto loaded = store->Load();
  ASSERT_OK(loaded);
  ASSERT_EQ(loaded->state.jobs.size(), 50u);
  EXPECT_EQ(loaded->state.jobs[49].spec, batch.jobs[49].spec);
}

// An update that stays on its page touches no index and leaves nothing for vacuum to collect there.
TEST_F(PostgresStoreTest, TasksStayOnTheirPagesFromBlockedToSucceeded) {
  constexpr int kTasks = 1000, kSteps = 20;
  auto store = New();
  const uint64_t epoch = *store->Open();
  uint64_t sequence = 0;
  WriteBatch batch = Batch(epoch, sequence++);
  std::vector<Task> tasks(kTasks);
  for (int i = 0; i < kTasks; ++i) {
    tasks[i].id = absl::StrCat("layer-", i);
    tasks[i].kind = TaskKind::kLayer;
    tasks[i].version = int64_t{1} << 32;
    batch.tasks.push_back({{1, i}, tasks[i]});
  }
  ASSERT_OK(store->Commit(batch));
  const std::string kPages = "SELECT (ctid::text::point)[0]::int FROM uniquanf_tasks ORDER BY task";
  const std::vector<std::string> before = postgres->Sql(state_, kPages);
  const auto change = [&](const std::function<void(Task*)>& how) {
    for (int step = 0; step < kSteps; ++step) {
      WriteBatch part = Batch(epoch, sequence++);
      for (int i = step; i < kTasks; i += kSteps) {
        how(&tasks[i]);
        part.tasks.push_back({{1, i}, tasks[i]});
      }
      ASSERT_OK(store->Commit(part));
    }
  };
  change([](Task* task) {
    task->state = TaskState::kLeased;
    task->lease = LeaseStatus::kActive;
    task->lease_id = absl::StrCat("0f8fad5b-d9cb-469f-a165-70867728950e/", task->id, "/1");
    task->session = "7c9e6679-7425-40de-944b-e07fc1f90ae7";
    task->worker = "gpu-machine-17";
    task->start_time = absl::FromUnixNanos(1700000000123456789);
  });
  change([](Task* task) {
    task->state = TaskState::kSucceeded;
    task->lease = LeaseStatus::kReported;
    task->end_time = absl::FromUnixNanos(1700000099123456789);
    task->result_sha256 = std::string(64, 'a');
  });
  const std::vector<std::string> after = postgres->Sql(state_, kPages);
  ASSERT_EQ(after.size(), before.size());
  int num_moved = 0;
  for (int i = 0; i < kTasks; ++i) num_moved += before[i] != after[i];
  EXPECT_LE(num_moved, kTasks / 50);
}

TEST_F(PostgresStoreTest, AStateOfTheFirstSchemaIsBroughtUpToDate) {
  {
    auto store = New();
    ASSERT_OK(store->Commit(Batch(*store->Open(), 0)));
  }
  postgres->Sql(state_, "UPDATE uniquanf_meta SET schema_version = 1");
  postgres->Sql(state_, "ALTER TABLE uniquanf_tasks SET (fillfactor = 50)");
  postgres->Sql(state_,
                "ALTER TABLE uniquanf_tasks RESET (autovacuum_analyze_threshold,"
                " autovacuum_vacuum_insert_threshold)");
  auto store = New();
  ASSERT_OK(store->Open());
  EXPECT_EQ(store->Load()->state.jobs.size(), 1u);
  EXPECT_EQ(postgres->Sql(state_, "SELECT schema_version FROM uniquanf_meta"),
            (std::vector<std::string>{"3"}));
  EXPECT_THAT(postgres->Sql(state_,
                            "SELECT array_to_string(reloptions, ' ') FROM pg_class"
                            " WHERE oid = 'uniquanf_tasks'::regclass"),
              testing::ElementsAre(testing::AllOf(HasSubstr("fillfactor=20"),
                                                  HasSubstr("analyze_threshold"),
                                                  HasSubstr("insert_threshold"))));
}

TEST_F(PostgresStoreTest, NewerSchemaIsRefused) {
  ASSERT_OK(New()->Open());
  postgres->Sql(state_, "UPDATE uniquanf_meta SET schema_version = 99");
  EXPECT_THAT(New()->Open(), FailsWith(absl::StatusCode::kFailedPrecondition, "STATE_SCHEMA"));
}

TEST_F(PostgresStoreTest, ADamagedRecordIsReportedClearly) {
  auto store = New();
  ASSERT_OK(store->Commit(Batch(*store->Open(), 0)));
  postgres->Sql(state_, "UPDATE uniquanf_jobs SET record = '\\xFFFFFF'");
  EXPECT_THAT(store->Load(), FailsWith(absl::StatusCode::kDataLoss, "STATE_CORRUPT"));
}

TEST_F(PostgresStoreTest, AUserWithoutRightsIsToldWhatIsMissing) {
  postgres->Sql(state_, "CREATE ROLE reader LOGIN PASSWORD 'other-secret'");
  std::string uri = state_;
  const std::string owner = absl::StrCat("uniquanf:", PostgresServer::kPassword);
  uri.replace(uri.find(owner), owner.size(), "reader:other-secret");
  EXPECT_THAT((*NewJobStore(uri))->Open(),
              FailsWith(absl::StatusCode::kFailedPrecondition, "STATE_UNWRITABLE",
                        Not(HasSubstr("other-secret"))));
}

TEST_F(PostgresStoreTest, PasswordsAppearInNoError) {
  std::string wrong = state_;
  wrong.replace(wrong.find(PostgresServer::kPassword), sizeof(PostgresServer::kPassword) - 1,
                "wrong-secret");
  EXPECT_THAT((*NewJobStore(wrong))->Open(),
              FailsWith(absl::StatusCode::kUnavailable, "STATE_UNAVAILABLE",
                        testing::AllOf(HasSubstr("password authentication failed"),
                                       Not(HasSubstr("wrong-secret")))));
  for (const char* uri :
       {"postgresql://u:wrong-secret@h:port/d?nosuch=1", "postgresql://u:wrong-secret@h/d?a%zz=1",
        "postgres://u:wrong-secret@[::1/d"}) {
    EXPECT_THAT(NewJobStore(uri), FailsWith(absl::StatusCode::kInvalidArgument, "INVALID_STATE_URI",
                                            Not(HasSubstr("wrong-secret"))))
        << uri;
  }
  EXPECT_THAT((*NewJobStore("postgresql://u:wrong-secret@127.0.0.1:1/d"))->Open(),
              FailsWith(absl::StatusCode::kUnavailable, "STATE_UNAVAILABLE",
                        testing::AllOf(HasSubstr("127.0.0.1:1"), Not(HasSubstr("wrong-secret")))));
}

TEST_F(PostgresStoreTest, AStateOf010IsReadAndWrittenAnew) {
  postgres->Sql(state_, ReadFile(kState010Postgres));
  ExpectMigrates([this] { return New(); });
}

}  // namespace
}  // namespace uniquanf::server

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  uniquanf::PostgresServer server;
  if (const int status = server.Start(); status != 0) {
    std::fprintf(stderr, "%s: no PostgreSQL server\n",
                 status == uniquanf::kSkipExitCode ? "skipped" : "failed");
    return status;
  }
  uniquanf::server::postgres = &server;
  return RUN_ALL_TESTS();
}
