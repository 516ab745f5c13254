#include "worker/agent/worker_telemetry.h"

#include <algorithm>
#include <utility>

#include "common/base/status.h"

namespace uniquanf {
namespace {

const prometheus::Histogram::BucketBoundaries kTaskSeconds = {0.1, 0.5, 1,   5,    10,   30,
                                                              60,  300, 900, 1800, 3600, 7200};

std::string KindLabel(const v1::TaskAssignment& assignment) {
  switch (assignment.kind()) {
    case v1::Task::PREPARE:
      return "prepare";
    case v1::Task::LAYER:
      return "layer";
    case v1::Task::FINALIZE:
      return "finalize";
    default:
      return "unknown";
  }
}

prometheus::Gauge& MakeGauge(prometheus::Registry* registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(*registry).Add({});
}

}  // namespace

WorkerTelemetry::WorkerTelemetry(Logger* logger, prometheus::Registry* registry,
                                 std::function<void()> on_ready)
    : logger_(logger),
      on_ready_(std::move(on_ready)),
      tasks_(prometheus::BuildCounter()
                 .Name("uniquanf_worker_tasks_total")
                 .Help("Tasks that returned, by kind and status code")
                 .Register(*registry)),
      task_seconds_(prometheus::BuildHistogram()
                        .Name("uniquanf_worker_task_seconds")
                        .Help("How long tasks ran")
                        .Register(*registry)),
      synchronize_(prometheus::BuildCounter()
                       .Name("uniquanf_worker_synchronize_total")
                       .Help("Calls of Synchronize, by status code")
                       .Register(*registry)),
      slots_busy_(MakeGauge(registry, "uniquanf_worker_slots_busy", "Slots that run a task")),
      slots_free_(MakeGauge(registry, "uniquanf_worker_slots_free", "Slots that take a task")),
      draining_(MakeGauge(registry, "uniquanf_worker_draining", "1 while the worker drains")),
      connected_gauge_(MakeGauge(registry, "uniquanf_worker_connected",
                                 "1 while the server accepts this worker's calls")),
      lease_expiries_(prometheus::BuildCounter()
                          .Name("uniquanf_worker_lease_expiries_total")
                          .Help("Leases that ran out without renewal")
                          .Register(*registry)
                          .Add({})) {}

void WorkerTelemetry::OnNote(const std::string& note) { logger_->Warning(note); }

void WorkerTelemetry::OnTaskStarted(int slot, const v1::TaskAssignment& assignment) {
  logger_->Info("task started", {{"task", assignment.task()},
                                 {"attempt", assignment.attempt()},
                                 {"lease", assignment.lease_id()},
                                 {"slot", slot},
                                 {"traceparent", assignment.traceparent()}});
}

void WorkerTelemetry::OnTaskReturned(int slot, const v1::TaskAssignment& assignment,
                                     const absl::Status& status, absl::Duration duration) {
  const std::string kind = KindLabel(assignment);
  tasks_.Add({{"kind", kind}, {"code", absl::StatusCodeToString(status.code())}}).Increment();
  task_seconds_.Add({{"kind", kind}}, kTaskSeconds).Observe(absl::ToDoubleSeconds(duration));
  const bool expected = status.ok() || absl::IsCancelled(status);
  logger_->Log(expected ? LogLevel::kInfo : LogLevel::kError,
               status.ok() ? "task done" : "task ended",
               {{"task", assignment.task()},
                {"attempt", assignment.attempt()},
                {"lease", assignment.lease_id()},
                {"slot", slot},
                {"code", absl::StatusCodeToString(status.code())},
                {"message", std::string(status.message())},
                {"reason", ErrorReason(status)},
                {"seconds", absl::ToDoubleSeconds(duration)},
                {"traceparent", assignment.traceparent()}});
}

void WorkerTelemetry::OnSynchronized(const absl::Status& status, absl::Duration latency,
                                     const AgentSnapshot& snapshot) {
  synchronize_.Add({{"code", absl::StatusCodeToString(status.code())}}).Increment();
  slots_busy_.Set(snapshot.num_running);
  slots_free_.Set(snapshot.num_free_slots);
  draining_.Set(snapshot.draining ? 1 : 0);
  lease_expiries_.Increment(
      std::max(0.0, static_cast<double>(snapshot.num_leases_expired) - lease_expiries_.Value()));
  connected_gauge_.Set(status.ok() ? 1 : 0);
  const bool was_connected = connected_.exchange(status.ok());
  if (status.ok() && !was_connected) logger_->Info("the server accepts this worker");
  // An outage is one line, not one a retry.
  if (!status.ok() && (was_connected || status.ToString() != last_error_)) {
    logger_->Warning("the server does not answer; trying on", {{"error", status.ToString()}});
    last_error_ = status.ToString();
  }
  if (status.ok() && !ready_) {
    ready_ = true;
    on_ready_();
  }
}

}  // namespace uniquanf
