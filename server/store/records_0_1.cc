#include "server/store/records_0_1.h"

#include "server/store/state_0_1.pb.h"

namespace uniquanf::server {
namespace {

absl::Time TimeOf(int64_t ns) { return absl::FromUnixNanos(ns); }

// A stored number as its enum; 0 (kUnknown) for one that 0.1.0 did not have.
template <typename E>
E Known(int32_t number, int num_known) {
  return number >= 1 && number <= num_known ? static_cast<E>(number) : E::kUnknown;
}

}  // namespace

bool ReadJob01(absl::string_view bytes, JobFields* job) {
  store::JobRecord01 r;
  if (!r.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return false;
  job->uid = r.uid();
  job->version = r.version();
  job->state = Known<JobState>(r.state(), kNumJobStates);
  job->status_message = r.status_message();
  if (r.has_error()) job->error = {r.error().reason(), r.error().message(), r.error().task()};
  job->tenant = r.tenant();
  job->priority = r.priority();
  job->labels.insert(r.labels().begin(), r.labels().end());
  job->create_time = TimeOf(r.create_time_ns());
  job->update_time = TimeOf(r.update_time_ns());
  if (r.has_start_time_ns()) job->start_time = TimeOf(r.start_time_ns());
  if (r.has_end_time_ns()) job->end_time = TimeOf(r.end_time_ns());
  if (r.has_deadline_ns()) job->deadline = TimeOf(r.deadline_ns());
  if (r.has_time_to_live_ns()) job->time_to_live = absl::Nanoseconds(r.time_to_live_ns());
  job->device = r.device();
  if (r.has_artifact()) {
    job->artifact = {r.artifact().uri(), r.artifact().manifest_sha256(), r.artifact().size_bytes()};
  }
  return true;
}

bool ReadTask01(absl::string_view bytes, TaskFields* task) {
  store::TaskRecord01 r;
  if (!r.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return false;
  task->kind = Known<TaskKind>(r.kind(), kNumTaskKinds);
  task->layer = r.layer();
  task->round = r.round();
  task->state = Known<TaskState>(r.state(), kNumTaskStates);
  task->attempt = r.attempt();
  task->worker = r.worker();
  for (const store::TaskRecord01::Failure& f : r.failures()) {
    task->failures.push_back({Known<FailureClass>(f.failure_class(), kNumFailureClasses),
                              f.reason(), f.message(), f.attempt(), f.worker(),
                              TimeOf(f.time_ns())});
  }
  if (r.has_start_time_ns()) task->start_time = TimeOf(r.start_time_ns());
  if (r.has_end_time_ns()) task->end_time = TimeOf(r.end_time_ns());
  if (r.has_next_attempt_time_ns()) task->next_attempt_time = TimeOf(r.next_attempt_time_ns());
  task->result_sha256 = r.result_sha256();
  return true;
}

}  // namespace uniquanf::server
