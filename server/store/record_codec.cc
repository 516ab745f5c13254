#include "server/store/record_codec.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/rpc/deterministic_bytes.h"
#include "common/rpc/job_proto.h"
#include "server/store/records_0_1.h"
#include "server/store/state.pb.h"

namespace uniquanf::server {
namespace {

absl::Status Corrupt(absl::string_view what) {
  return MakeError(
      absl::StatusCode::kDataLoss, "STATE_CORRUPT",
      absl::StrCat("a stored ", what, " cannot be read; restore the state from a backup"));
}

}  // namespace

std::string EncodeTask(const Task& task) {
  store::TaskRecord r;
  TaskFieldsToProto(task, r.mutable_task());
  r.set_id(task.id);
  for (const int32_t dependency : task.depends_on) r.add_depends_on(dependency);
  r.set_version(task.version);
  r.set_lease_id(task.lease_id);
  r.set_lease(static_cast<int>(task.lease));
  r.set_session(task.session);
  r.set_lease_token_sha256(task.lease_token_sha256);
  r.set_num_worker_lost(task.num_worker_lost);
  r.set_num_transient(task.num_transient);
  r.set_num_out_of_memory(task.num_out_of_memory);
  r.set_num_internal(task.num_internal);
  r.set_exceeded_memory_bytes(task.exceeded_memory_bytes);
  r.set_num_environment(task.num_environment);
  for (const std::string& session : task.environment_sessions) r.add_environment_sessions(session);
  r.set_num_reopened(task.num_reopened);
  r.set_lost_sha256(task.lost_sha256);
  r.set_worker_time_ns(absl::ToInt64Nanoseconds(task.worker_time));
  if (task.history != nullptr) HistoryToProto(*task.history, 0, r.mutable_history());
  if (task.modules != nullptr) ModulesToProto(*task.modules, r.mutable_modules());
  PhasesToProto(task.phases, r.mutable_phases());
  return DeterministicBytes(r);
}

absl::StatusOr<Task> DecodeTask(absl::string_view bytes, bool* is_old) {
  store::TaskRecord r;
  if (!r.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return Corrupt("task");
  Task task;
  if (r.has_task()) {
    TaskFieldsFromProto(r.task(), &task);
  } else {
    if (!ReadTask01(bytes, &task)) return Corrupt("task");
    if (is_old != nullptr) *is_old = true;
  }
  if (task.kind == TaskKind::kUnknown || task.state == TaskState::kUnknown || r.lease() < 0 ||
      r.lease() > static_cast<int>(LeaseStatus::kRevoked)) {
    return Corrupt("task");
  }
  for (const TaskFailure& failure : task.failures) {
    if (failure.failure_class == FailureClass::kUnknown) return Corrupt("task");
  }
  task.id = r.id();
  task.depends_on.assign(r.depends_on().begin(), r.depends_on().end());
  task.version = r.version();
  task.lease_id = r.lease_id();
  task.lease = static_cast<LeaseStatus>(r.lease());
  task.session = r.session();
  task.lease_token_sha256 = r.lease_token_sha256();
  task.num_worker_lost = r.num_worker_lost();
  task.num_transient = r.num_transient();
  task.num_out_of_memory = r.num_out_of_memory();
  task.num_internal = r.num_internal();
  task.exceeded_memory_bytes = r.exceeded_memory_bytes();
  task.worker_time = absl::Nanoseconds(r.worker_time_ns());
  task.num_environment = r.num_environment();
  task.environment_sessions.assign(r.environment_sessions().begin(),
                                   r.environment_sessions().end());
  task.num_reopened = r.num_reopened();
  task.lost_sha256 = r.lost_sha256();
  if (r.has_history()) {
    auto history = std::make_shared<LossHistory>();
    AppendHistory(r.history(), history.get());
    task.history = std::move(history);
  }
  if (r.modules_size() > 0) {
    task.modules =
        std::make_shared<const std::vector<ModuleMetrics>>(ModulesFromProto(r.modules()));
  }
  task.phases = PhasesFromProto(r.phases());
  return task;
}

std::string EncodeJob(const Job& job) {
  store::JobRecord r;
  JobFieldsToProto(job, r.mutable_job());
  r.set_seq(job.seq);
  r.set_id(job.id);
  r.set_spec(job.spec);
  r.set_request_id(job.request_id);
  r.set_request_digest(job.request_digest);
  r.set_num_layers(job.num_layers);
  r.set_layers_independent(job.layers_independent);
  r.set_num_rounds(job.num_rounds);
  r.set_distill_window(job.distill_window);
  r.set_layer_memory_bytes(job.layer_memory_bytes);
  r.set_report(job.report);
  WorkToProto(job.work, r.mutable_work());
  r.set_fraction(job.fraction);
  return DeterministicBytes(r);
}

absl::StatusOr<Job> DecodeJob(absl::string_view bytes, bool* is_old) {
  store::JobRecord r;
  if (!r.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return Corrupt("job");
  Job job;
  if (r.has_job()) {
    JobFieldsFromProto(r.job(), &job);
  } else {
    if (!ReadJob01(bytes, &job)) return Corrupt("job");
    if (is_old != nullptr) *is_old = true;
  }
  if (job.state == JobState::kUnknown || r.id().empty()) return Corrupt("job");
  job.seq = r.seq();
  job.id = r.id();
  job.spec = r.spec();
  job.request_id = r.request_id();
  job.request_digest = r.request_digest();
  job.num_layers = r.num_layers();
  job.layers_independent = r.layers_independent();
  job.num_rounds = std::max(1, r.num_rounds());
  job.distill_window = std::max(0, r.distill_window());
  job.layer_memory_bytes = r.layer_memory_bytes();
  job.report = r.report();
  job.work = WorkFromProto(r.work());
  job.fraction = std::clamp(r.fraction(), 0.0, 1.0);
  job.waiting.reset();
  return job;
}

}  // namespace uniquanf::server
