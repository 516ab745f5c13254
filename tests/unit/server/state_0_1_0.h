// The states in testdata, made by the server, worker and client of 0.1.0 (commit 5e91b79): a job
// each that succeeded, failed, was running (pipelined, one task leased) when both were killed, was
// queued with everything that can be asked for, and was paused.
#ifndef UNIQUANF_TESTS_UNIT_SERVER_STATE_0_1_0_H_
#define UNIQUANF_TESTS_UNIT_SERVER_STATE_0_1_0_H_

#include <gtest/gtest.h>

#include <string>

#include "common/rpc/spec_proto.h"
#include "server/store/job_store.h"
#include "server/store/record_codec.h"
#include "tests/support/status_matchers.h"

namespace uniquanf::server {

inline constexpr char kState010Sqlite[] =
    UNIQUANF_SOURCE_DIR "/tests/unit/server/testdata/state_0_1_0.sqlite";
inline constexpr char kState010Postgres[] =
    UNIQUANF_SOURCE_DIR "/tests/unit/server/testdata/state_0_1_0.postgresql.sql";

// Everything as the 0.1.0 client showed it, and as its scheduler needs it.
inline void ExpectState010(const LoadedState& loaded) {
  const StoredState& state = loaded.state;
  ASSERT_EQ(state.jobs.size(), 5u);
  ASSERT_EQ(state.tasks.size(), 19u);
  const Job &done = state.jobs[0], &failed = state.jobs[1], &running = state.jobs[2];
  const Job &queued = state.jobs[3], &paused = state.jobs[4];
  EXPECT_EQ(done.id, "done");
  EXPECT_EQ(done.state, JobState::kSucceeded);
  EXPECT_EQ(done.tenant, "default");
  EXPECT_EQ(done.device, "cpu");
  EXPECT_EQ(done.labels, (std::map<std::string, std::string>{{"team", "a"}}));
  EXPECT_EQ(done.num_layers, 4);
  ASSERT_TRUE(done.artifact.has_value());
  EXPECT_EQ(done.artifact->uri, "file:///tmp/u010/done");
  EXPECT_EQ(done.artifact->manifest_sha256.size(), 64u);
  EXPECT_GT(done.artifact->size_bytes, 0);
  ASSERT_TRUE(done.start_time && done.end_time);
  EXPECT_LT(done.create_time, *done.end_time);
  EXPECT_LT(*done.start_time, *done.end_time);
  EXPECT_LE(*done.end_time, done.update_time);
  v1::JobReport report;
  ASSERT_TRUE(report.ParseFromString(done.report));
  EXPECT_EQ(report.layers_size(), 4);

  EXPECT_EQ(failed.state, JobState::kFailed);
  ASSERT_TRUE(failed.error.has_value());
  EXPECT_EQ(failed.error->task, "prepare");
  EXPECT_FALSE(failed.error->reason.empty());

  EXPECT_EQ(running.state, JobState::kRunning);
  EXPECT_EQ(running.num_rounds, 2);
  EXPECT_FALSE(running.layers_independent);
  EXPECT_FALSE(running.end_time.has_value());

  EXPECT_EQ(queued.state, JobState::kQueued);
  EXPECT_EQ(queued.priority, 7);
  EXPECT_EQ(queued.tenant, "t2");
  EXPECT_EQ(queued.device, "cpu");
  EXPECT_EQ(queued.request_id, "once");
  EXPECT_EQ(queued.request_digest.size(), 64u);
  EXPECT_EQ(queued.deadline, absl::FromUnixSeconds(4102444800));
  EXPECT_EQ(queued.time_to_live, absl::Hours(48));
  v1::QuantizationSpec proto;
  ASSERT_TRUE(proto.ParseFromString(queued.spec));
  ASSERT_OK_AND_ASSIGN(const QuantizationSpec spec, SpecFromProto(proto));
  EXPECT_OK(spec.Validate());
  ASSERT_EQ(spec.overrides.size(), 1u);
  EXPECT_EQ(spec.overrides[0], (ModuleOverride{"*.down_proj", 4, 64, false}));
  EXPECT_EQ(paused.state, JobState::kPaused);

  // The running job's tasks are the graph's, and the lease is still known.
  const std::vector<TaskNode> graph = BuildTaskGraph(ShapeOf(running));
  size_t num_tasks = 0, num_leased = 0;
  for (const StoredTask& stored : state.tasks) {
    if (stored.ref.job != running.seq) continue;
    const Task& task = stored.task;
    const TaskNode& node = graph.at(stored.ref.index);
    ++num_tasks;
    EXPECT_EQ(task.id, TaskId(node));
    EXPECT_EQ(task.kind, node.kind);
    EXPECT_EQ(task.layer, node.layer);
    EXPECT_EQ(task.round, node.round);
    EXPECT_EQ(task.depends_on, node.depends_on);
    if (task.state != TaskState::kLeased) continue;
    ++num_leased;
    EXPECT_EQ(task.id, "layer-0000");
    EXPECT_EQ(task.lease, LeaseStatus::kActive);
    EXPECT_EQ(task.attempt, 1);
    EXPECT_EQ(task.worker, "old-worker");
    EXPECT_FALSE(task.lease_id.empty());
    EXPECT_FALSE(task.session.empty());
    EXPECT_TRUE(task.start_time.has_value());
  }
  EXPECT_EQ(num_tasks, graph.size());
  EXPECT_EQ(num_leased, 1u);
}

// Opens a store on such a state; rewritten, it holds the same and nothing old.
template <typename NewStore>
void ExpectMigrates(NewStore new_store) {
  {
    const auto store = new_store();
    ASSERT_OK_AND_ASSIGN(const uint64_t epoch, store->Open());
    ASSERT_OK_AND_ASSIGN(LoadedState loaded, store->Load());
    EXPECT_TRUE(loaded.has_old_records);
    ExpectState010(loaded);
    ASSERT_OK(RewriteRecords(store.get(), epoch, &loaded));
    EXPECT_FALSE(loaded.has_old_records);
    WriteBatch next;
    next.epoch = epoch;
    next.expected_sequence = loaded.sequence;
    EXPECT_OK(store->Commit(next)) << "the sequence that a server goes on from is the store's";
  }
  const auto store = new_store();
  ASSERT_OK(store->Open());
  ASSERT_OK_AND_ASSIGN(const LoadedState loaded, store->Load());
  EXPECT_FALSE(loaded.has_old_records);
  ExpectState010(loaded);
}

}  // namespace uniquanf::server

#endif  // UNIQUANF_TESTS_UNIT_SERVER_STATE_0_1_0_H_
