#include "server/store/record_codec.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/message_lite.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "server/store/state.pb.h"

namespace uniquanf::server {
namespace {

// With maps in the order of their keys, so that equal records are equal bytes.
std::string Serialize(const google::protobuf::MessageLite& record) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream out(&stream);
    out.SetSerializationDeterministic(true);
    record.SerializeToCodedStream(&out);
  }
  return bytes;
}

absl::Status Corrupt(absl::string_view what) {
  return MakeError(
      absl::StatusCode::kDataLoss, "STATE_CORRUPT",
      absl::StrCat("a stored ", what, " cannot be read; restore the state from a backup"));
}

int64_t Ns(absl::Time time) { return absl::ToUnixNanos(time); }
int64_t Ns(absl::Duration duration) { return absl::ToInt64Nanoseconds(duration); }
absl::Time TimeOf(int64_t ns) { return absl::FromUnixNanos(ns); }

}  // namespace

std::string EncodeTask(const Task& task) {
  store::TaskRecord r;
  r.set_id(task.id);
  r.set_kind(static_cast<int>(task.kind));
  r.set_layer(task.layer);
  r.set_state(static_cast<int>(task.state));
  for (const int32_t dependency : task.depends_on) r.add_depends_on(dependency);
  r.set_version(task.version);
  r.set_attempt(task.attempt);
  r.set_lease_id(task.lease_id);
  r.set_lease(static_cast<int>(task.lease));
  r.set_session(task.session);
  r.set_worker(task.worker);
  r.set_num_worker_lost(task.num_worker_lost);
  r.set_num_transient(task.num_transient);
  r.set_num_out_of_memory(task.num_out_of_memory);
  r.set_num_internal(task.num_internal);
  r.set_exceeded_memory_bytes(task.exceeded_memory_bytes);
  for (const TaskFailure& failure : task.failures) {
    store::Failure* f = r.add_failures();
    f->set_failure_class(static_cast<int>(failure.failure_class));
    f->set_reason(failure.reason);
    f->set_message(failure.message);
    f->set_attempt(failure.attempt);
    f->set_worker(failure.worker);
    f->set_time_ns(Ns(failure.time));
  }
  if (task.start_time) r.set_start_time_ns(Ns(*task.start_time));
  if (task.end_time) r.set_end_time_ns(Ns(*task.end_time));
  if (task.next_attempt_time) r.set_next_attempt_time_ns(Ns(*task.next_attempt_time));
  r.set_worker_time_ns(Ns(task.worker_time));
  r.set_result_sha256(task.result_sha256);
  r.set_round(task.round);
  r.set_num_environment(task.num_environment);
  for (const std::string& session : task.environment_sessions) r.add_environment_sessions(session);
  r.set_num_reopened(task.num_reopened);
  r.set_lost_sha256(task.lost_sha256);
  return Serialize(r);
}

absl::StatusOr<Task> DecodeTask(absl::string_view bytes) {
  store::TaskRecord r;
  if (!r.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return Corrupt("task");
  if (r.kind() < 1 || r.kind() > 3 || r.state() < 1 || r.state() > kNumTaskStates ||
      r.lease() < 0 || r.lease() > 3) {
    return Corrupt("task");
  }
  Task task;
  task.id = r.id();
  task.kind = static_cast<TaskKind>(r.kind());
  task.layer = r.layer();
  task.state = static_cast<TaskState>(r.state());
  task.depends_on.assign(r.depends_on().begin(), r.depends_on().end());
  task.version = r.version();
  task.attempt = r.attempt();
  task.lease_id = r.lease_id();
  task.lease = static_cast<LeaseStatus>(r.lease());
  task.session = r.session();
  task.worker = r.worker();
  task.num_worker_lost = r.num_worker_lost();
  task.num_transient = r.num_transient();
  task.num_out_of_memory = r.num_out_of_memory();
  task.num_internal = r.num_internal();
  task.exceeded_memory_bytes = r.exceeded_memory_bytes();
  for (const store::Failure& f : r.failures()) {
    if (f.failure_class() < 1 || f.failure_class() > kNumFailureClasses) return Corrupt("task");
    task.failures.push_back({static_cast<FailureClass>(f.failure_class()), f.reason(), f.message(),
                             f.attempt(), f.worker(), TimeOf(f.time_ns())});
  }
  if (r.has_start_time_ns()) task.start_time = TimeOf(r.start_time_ns());
  if (r.has_end_time_ns()) task.end_time = TimeOf(r.end_time_ns());
  if (r.has_next_attempt_time_ns()) task.next_attempt_time = TimeOf(r.next_attempt_time_ns());
  task.worker_time = absl::Nanoseconds(r.worker_time_ns());
  task.result_sha256 = r.result_sha256();
  task.round = r.round();
  task.num_environment = r.num_environment();
  task.environment_sessions.assign(r.environment_sessions().begin(),
                                   r.environment_sessions().end());
  task.num_reopened = r.num_reopened();
  task.lost_sha256 = r.lost_sha256();
  return task;
}

std::string EncodeJob(const Job& job) {
  store::JobRecord r;
  r.set_seq(job.seq);
  r.set_id(job.id);
  r.set_uid(job.uid);
  r.set_spec(job.spec);
  r.set_version(job.version);
  r.set_state(static_cast<int>(job.state));
  r.set_status_message(job.status_message);
  if (job.error) {
    r.mutable_error()->set_reason(job.error->reason);
    r.mutable_error()->set_message(job.error->message);
    r.mutable_error()->set_task(job.error->task);
  }
  r.set_tenant(job.tenant);
  r.set_priority(job.priority);
  for (const auto& [key, value] : job.labels) (*r.mutable_labels())[key] = value;
  r.set_create_time_ns(Ns(job.create_time));
  r.set_update_time_ns(Ns(job.update_time));
  if (job.start_time) r.set_start_time_ns(Ns(*job.start_time));
  if (job.end_time) r.set_end_time_ns(Ns(*job.end_time));
  if (job.deadline) r.set_deadline_ns(Ns(*job.deadline));
  if (job.time_to_live) r.set_time_to_live_ns(Ns(*job.time_to_live));
  r.set_device(job.device);
  r.set_request_id(job.request_id);
  r.set_request_digest(job.request_digest);
  r.set_num_layers(job.num_layers);
  r.set_layers_independent(job.layers_independent);
  r.set_num_rounds(job.num_rounds);
  r.set_layer_memory_bytes(job.layer_memory_bytes);
  if (job.artifact) {
    r.mutable_artifact()->set_uri(job.artifact->uri);
    r.mutable_artifact()->set_manifest_sha256(job.artifact->manifest_sha256);
    r.mutable_artifact()->set_size_bytes(job.artifact->size_bytes);
  }
  r.set_report(job.report);
  return Serialize(r);
}

absl::StatusOr<Job> DecodeJob(absl::string_view bytes) {
  store::JobRecord r;
  if (!r.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return Corrupt("job");
  if (r.state() < 1 || r.state() > kNumJobStates || r.id().empty()) return Corrupt("job");
  Job job;
  job.seq = r.seq();
  job.id = r.id();
  job.uid = r.uid();
  job.spec = r.spec();
  job.version = r.version();
  job.state = static_cast<JobState>(r.state());
  job.status_message = r.status_message();
  if (r.has_error()) job.error = {r.error().reason(), r.error().message(), r.error().task()};
  job.tenant = r.tenant();
  job.priority = r.priority();
  job.labels.insert(r.labels().begin(), r.labels().end());
  job.create_time = TimeOf(r.create_time_ns());
  job.update_time = TimeOf(r.update_time_ns());
  if (r.has_start_time_ns()) job.start_time = TimeOf(r.start_time_ns());
  if (r.has_end_time_ns()) job.end_time = TimeOf(r.end_time_ns());
  if (r.has_deadline_ns()) job.deadline = TimeOf(r.deadline_ns());
  if (r.has_time_to_live_ns()) job.time_to_live = absl::Nanoseconds(r.time_to_live_ns());
  job.device = r.device();
  job.request_id = r.request_id();
  job.request_digest = r.request_digest();
  job.num_layers = r.num_layers();
  job.layers_independent = r.layers_independent();
  job.num_rounds = std::max(1, r.num_rounds());
  job.layer_memory_bytes = r.layer_memory_bytes();
  if (r.has_artifact()) {
    job.artifact = {r.artifact().uri(), r.artifact().manifest_sha256(), r.artifact().size_bytes()};
  }
  job.report = r.report();
  return job;
}

}  // namespace uniquanf::server
