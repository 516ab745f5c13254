#include <cmath>

#include "client/cli/output.h"

namespace uniquanf::cli {
namespace {

using Json = nlohmann::ordered_json;

Json TimeJson(std::optional<absl::Time> time) {
  if (!time.has_value() || *time == absl::InfinitePast()) return nullptr;
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E*SZ", *time, absl::UTCTimeZone());
}

Json NumberJson(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json DurationJson(const std::optional<absl::Duration>& duration) {
  return duration.has_value() ? NumberJson(absl::ToDoubleSeconds(*duration)) : Json(nullptr);
}

}  // namespace

Json ToJson(const Job& job) {
  Json json;
  json["name"] = job.name;
  json["uid"] = job.uid;
  json["state"] = std::string(JobStateName(job.state));
  json["version"] = job.version;
  json["status_message"] = job.status_message;
  json["error"] = nullptr;
  if (job.error.has_value()) {
    json["error"] = {
        {"reason", job.error->reason}, {"message", job.error->message}, {"task", job.error->task}};
  }
  json["progress"] = {{"fraction", NumberJson(job.progress.fraction)},
                      {"num_tasks", job.progress.num_tasks},
                      {"num_tasks_succeeded", job.progress.num_tasks_succeeded},
                      {"num_layers", job.progress.num_layers},
                      {"num_layers_succeeded", job.progress.num_layers_succeeded},
                      {"remaining_seconds", DurationJson(job.progress.remaining)}};
  json["waiting"] =
      job.waiting.has_value()
          ? Json({{"reason", job.waiting->reason}, {"num_before", job.waiting->num_before}})
          : Json(nullptr);
  json["tenant"] = job.tenant;
  json["priority"] = job.priority;
  json["labels"] = Json::object();
  for (const auto& [key, value] : job.labels) json["labels"][key] = value;
  json["device"] = job.device;
  json["create_time"] = TimeJson(job.create_time);
  json["start_time"] = TimeJson(job.start_time);
  json["end_time"] = TimeJson(job.end_time);
  json["update_time"] = TimeJson(job.update_time);
  json["deadline"] = TimeJson(job.deadline);
  json["time_to_live_seconds"] = DurationJson(job.time_to_live);
  json["spec"] = Json::parse(job.spec.ToJson(), nullptr, /*allow_exceptions=*/false);
  json["artifact"] = job.artifact ? uniquanf::ToJson(*job.artifact) : Json(nullptr);
  json["report"] = job.report.has_value() ? uniquanf::ToJson(*job.report) : Json(nullptr);
  if (!job.not_checked.empty()) json["not_checked"] = job.not_checked;
  return json;
}

Json ToJson(const Task& task) {
  Json json;
  json["name"] = task.name;
  json["kind"] = std::string(TaskKindName(task.kind));
  const bool has_layer = task.kind == TaskKind::kLayer || task.kind == TaskKind::kDistill;
  json["layer"] = has_layer ? Json(task.layer) : Json(nullptr);
  json["round"] = task.kind == TaskKind::kLayer ? Json(task.round) : Json(nullptr);
  json["state"] = std::string(TaskStateName(task.state));
  json["attempt"] = task.attempt;
  json["worker"] = task.worker;
  json["progress"] = {{"phase", task.progress.phase},
                      {"step", task.progress.step},
                      {"num_steps", task.progress.num_steps},
                      {"loss", NumberJson(task.progress.loss)},
                      {"fraction", NumberJson(task.progress.fraction)},
                      {"remaining_seconds", DurationJson(task.progress.remaining)}};
  const bool measured = task.initial_loss != 0 || task.final_loss != 0;
  json["initial_loss"] = measured ? NumberJson(task.initial_loss) : Json(nullptr);
  json["final_loss"] = measured ? NumberJson(task.final_loss) : Json(nullptr);
  json["failures"] = Json::array();
  for (const TaskFailure& failure : task.failures) {
    json["failures"].push_back({{"class", std::string(FailureClassName(failure.failure_class))},
                                {"reason", failure.reason},
                                {"message", failure.message},
                                {"attempt", failure.attempt},
                                {"worker", failure.worker},
                                {"time", TimeJson(failure.time)}});
  }
  json["start_time"] = TimeJson(task.start_time);
  json["end_time"] = TimeJson(task.end_time);
  json["next_attempt_time"] = TimeJson(task.next_attempt_time);
  json["result_sha256"] = task.result_sha256;
  return json;
}

Json ToJson(const Worker& worker) {
  Json json;
  json["name"] = worker.name;
  json["state"] = std::string(WorkerStateName(worker.state));
  json["session_id"] = worker.session_id;
  json["device"] = worker.device;
  json["device_description"] = worker.device_description;
  json["memory_bytes"] = worker.memory_bytes;
  json["num_slots"] = worker.num_slots;
  json["num_cpus"] = worker.num_cpus == 0 ? Json(nullptr) : Json(worker.num_cpus);
  json["labels"] = Json::object();
  for (const auto& [key, value] : worker.labels) json["labels"][key] = value;
  json["software_version"] = worker.software_version;
  json["start_time"] = TimeJson(worker.start_time);
  json["last_seen_time"] = TimeJson(worker.last_seen_time);
  json["tasks"] = worker.tasks;
  json["status_message"] = worker.status_message;
  json["process"] = worker.process;
  return json;
}

Json ToJson(const ServerInfo& info) {
  Json json;
  json["version"] = info.version;
  json["active"] = info.active;
  json["state_backend"] = info.state_backend;
  json["object_root"] = info.object_root;
  json["start_time"] = TimeJson(info.start_time);
  json["num_jobs"] = info.num_jobs;
  json["num_tasks_ready"] = info.num_tasks_ready;
  json["num_tasks_leased"] = info.num_tasks_leased;
  json["wall_clock_ahead_seconds"] = DurationJson(info.wall_clock_ahead);
  return json;
}

}  // namespace uniquanf::cli
