// What every JobStore does. A store's test instantiates it:
//
//   INSTANTIATE_TYPED_TEST_SUITE_P(Sqlite, JobStoreConformance, SqliteFactory);
//
// where the factory has `std::unique_ptr<JobStore> New()`: every call another handle to the same
// storage, of which one is open at a time unless the test says otherwise.
#ifndef UNIQUANF_TESTS_UNIT_SERVER_JOB_STORE_CONFORMANCE_H_
#define UNIQUANF_TESTS_UNIT_SERVER_JOB_STORE_CONFORMANCE_H_

#include <gtest/gtest.h>

#include <string>

#include "server/store/job_store.h"
#include "server/store/record_codec.h"
#include "tests/support/status_matchers.h"

namespace uniquanf::server {

inline Job SampleJob(uint64_t seq, const std::string& id) {
  Job job;
  job.seq = seq;
  job.id = id;
  job.uid = "uid-" + id;
  job.spec = std::string("\x00\xFF spec", 7);
  job.version = 42;
  job.state = JobState::kFailed;
  job.status_message = "why";
  job.error = JobError{"REASON", "message", "layer-0001"};
  job.tenant = "tenant";
  job.priority = -3;
  job.labels = {{"a", "b"}, {"c", ""}};
  job.create_time = absl::FromUnixNanos(1700000000123456789);
  job.update_time = job.create_time + absl::Seconds(1);
  job.start_time = job.create_time + absl::Seconds(2);
  job.end_time = job.create_time + absl::Seconds(3);
  job.deadline = job.create_time + absl::Hours(1);
  job.time_to_live = absl::Hours(5);
  job.device = "cpu";
  job.request_id = "request-" + id;
  job.request_digest = "digest";
  job.num_layers = 3;
  job.layers_independent = true;
  job.layer_memory_bytes = 123;
  job.artifact = ArtifactRef{"file:///x", "sha", 77};
  job.report = std::string("\x01\x00\x02", 3);
  return job;
}

inline Task SampleTask(const std::string& id) {
  Task task;
  task.id = id;
  task.kind = TaskKind::kLayer;
  task.layer = 5;
  task.state = TaskState::kLeased;
  task.depends_on = {0, 4};
  task.version = 17;
  task.attempt = 2;
  task.lease_id = "lease";
  task.lease = LeaseStatus::kActive;
  task.session = "session";
  task.worker = "worker";
  task.num_worker_lost = 1;
  task.num_transient = 2;
  task.num_out_of_memory = 1;
  task.num_internal = 1;
  task.num_environment = 2;
  task.environment_sessions = {"session-1", "session-2"};
  task.num_reopened = 3;
  task.lost_sha256 = std::string(64, 'b');
  task.exceeded_memory_bytes = 1 << 20;
  task.failures = {{FailureClass::kTransient, "R", "m", 1, "w", absl::FromUnixSeconds(5)}};
  task.start_time = absl::FromUnixSeconds(6);
  task.end_time = absl::FromUnixSeconds(7);
  task.next_attempt_time = absl::FromUnixSeconds(8);
  task.worker_time = absl::Seconds(9);
  task.result_sha256 = std::string(64, 'a');
  return task;
}

template <typename Factory>
class JobStoreConformance : public ::testing::Test {
 protected:
  WriteBatch Batch(uint64_t epoch, uint64_t sequence) {
    WriteBatch batch;
    batch.epoch = epoch;
    batch.expected_sequence = sequence;
    return batch;
  }
  Factory factory_;
};
TYPED_TEST_SUITE_P(JobStoreConformance);

TYPED_TEST_P(JobStoreConformance, NewStoreIsEmpty) {
  auto store = this->factory_.New();
  ASSERT_THAT(store->Open(), IsOk());
  const auto loaded = store->Load();
  ASSERT_THAT(loaded, IsOk());
  EXPECT_EQ(loaded->sequence, 0u);
  EXPECT_TRUE(loaded->state.jobs.empty());
  EXPECT_TRUE(loaded->state.tasks.empty());
}

TYPED_TEST_P(JobStoreConformance, WhatIsCommittedIsReadBackWholeAfterReopening) {
  {
    auto store = this->factory_.New();
    WriteBatch batch = this->Batch(*store->Open(), 0);
    batch.jobs = {SampleJob(1, "a"), SampleJob(7, "b")};
    batch.tasks = {{{1, 0}, SampleTask("x")}, {{7, 0}, SampleTask("y")}, {{7, 1}, SampleTask("z")}};
    batch.drains = {{"w", "s", true}};
    batch.garbage = {"g1", "g2"};
    ASSERT_THAT(store->Commit(batch), IsOk());
  }
  auto store = this->factory_.New();
  ASSERT_THAT(store->Open(), IsOk());
  const auto loaded = store->Load();
  ASSERT_THAT(loaded, IsOk());
  EXPECT_EQ(loaded->sequence, 1u);
  ASSERT_EQ(loaded->state.jobs.size(), 2u);
  EXPECT_EQ(EncodeJob(loaded->state.jobs[1]), EncodeJob(SampleJob(7, "b")));
  ASSERT_EQ(loaded->state.tasks.size(), 3u);
  EXPECT_EQ(loaded->state.tasks[2].ref, (TaskRef{7, 1}));
  EXPECT_EQ(EncodeTask(loaded->state.tasks[2].task), EncodeTask(SampleTask("z")));
  ASSERT_EQ(loaded->state.drains.size(), 1u);
  EXPECT_EQ(loaded->state.drains[0].session, "s");
  EXPECT_TRUE(loaded->state.drains[0].by_name);
  EXPECT_EQ(loaded->state.garbage, (std::vector<std::string>{"g1", "g2"}));
}

TYPED_TEST_P(JobStoreConformance, DeletionsComeBeforePutsAndTakeTheTasksAlong) {
  auto store = this->factory_.New();
  const uint64_t epoch = *store->Open();
  WriteBatch batch = this->Batch(epoch, 0);
  batch.jobs = {SampleJob(1, "a"), SampleJob(2, "b")};
  batch.tasks = {{{1, 0}, SampleTask("x")}, {{2, 0}, SampleTask("y")}};
  batch.drains = {{"w", "s"}};
  batch.garbage = {"g"};
  ASSERT_THAT(store->Commit(batch), IsOk());
  batch = this->Batch(epoch, 1);
  batch.deleted_jobs = {1, 99};
  batch.jobs = {SampleJob(1, "again")};
  batch.deleted_drains = {"w"};
  batch.deleted_garbage = {"g"};
  ASSERT_THAT(store->Commit(batch), IsOk());
  const auto loaded = store->Load();
  ASSERT_THAT(loaded, IsOk());
  ASSERT_EQ(loaded->state.jobs.size(), 2u);
  EXPECT_EQ(loaded->state.jobs[0].id, "again");
  ASSERT_EQ(loaded->state.tasks.size(), 1u);
  EXPECT_EQ(loaded->state.tasks[0].ref.job, 2u);
  EXPECT_TRUE(loaded->state.drains.empty());
  EXPECT_TRUE(loaded->state.garbage.empty());
}

TYPED_TEST_P(JobStoreConformance, WrongSequenceIsRefusedAndWritesNothing) {
  auto store = this->factory_.New();
  const uint64_t epoch = *store->Open();
  WriteBatch batch = this->Batch(epoch, 3);
  batch.jobs = {SampleJob(1, "a")};
  EXPECT_THAT(store->Commit(batch), FailsWith(absl::StatusCode::kAborted, "STORE_FENCED"));
  EXPECT_TRUE(store->Load()->state.jobs.empty());
  batch.expected_sequence = 0;
  EXPECT_THAT(store->Commit(batch), IsOk());
  EXPECT_THAT(store->Commit(batch), FailsWith(absl::StatusCode::kAborted, "STORE_FENCED"));
}

TYPED_TEST_P(JobStoreConformance, EveryOpenFencesTheEpochsBefore) {
  auto store = this->factory_.New();
  const uint64_t first = *store->Open();
  const auto second = store->Open();
  ASSERT_THAT(second, IsOk());
  EXPECT_GT(*second, first);
  EXPECT_THAT(store->Commit(this->Batch(first, 0)),
              FailsWith(absl::StatusCode::kAborted, "STORE_FENCED"));
  EXPECT_THAT(store->Commit(this->Batch(*second, 0)), IsOk());
}

TYPED_TEST_P(JobStoreConformance, LargeBatchIsAtomicAndComplete) {
  auto store = this->factory_.New();
  WriteBatch batch = this->Batch(*store->Open(), 0);
  batch.jobs = {SampleJob(1, "a")};
  for (int32_t i = 0; i < 5000; ++i) batch.tasks.push_back({{1, i}, SampleTask("t")});
  ASSERT_THAT(store->Commit(batch), IsOk());
  const auto loaded = store->Load();
  ASSERT_EQ(loaded->state.tasks.size(), 5000u);
  for (int32_t i = 0; i < 5000; ++i) ASSERT_EQ(loaded->state.tasks[i].ref.index, i);
}

REGISTER_TYPED_TEST_SUITE_P(JobStoreConformance, NewStoreIsEmpty,
                            WhatIsCommittedIsReadBackWholeAfterReopening,
                            DeletionsComeBeforePutsAndTakeTheTasksAlong,
                            WrongSequenceIsRefusedAndWritesNothing, EveryOpenFencesTheEpochsBefore,
                            LargeBatchIsAtomicAndComplete);

}  // namespace uniquanf::server

#endif  // UNIQUANF_TESTS_UNIT_SERVER_JOB_STORE_CONFORMANCE_H_
