// The agent's events as structured logs and metrics.
//
// Thread safety: thread-safe. Ownership: borrows the logger and the registry, which outlive it. No
// metric carries a job, task or layer: their number has no bound.
#ifndef UNIQUANF_WORKER_AGENT_WORKER_TELEMETRY_H_
#define UNIQUANF_WORKER_AGENT_WORKER_TELEMETRY_H_

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <atomic>
#include <functional>
#include <string>

#include "common/telemetry/logger.h"
#include "worker/agent/agent_observer.h"

namespace uniquanf {

class WorkerTelemetry : public AgentObserver {
 public:
  // `on_ready` is called once, at the first call that the server accepted.
  WorkerTelemetry(Logger* logger, prometheus::Registry* registry, std::function<void()> on_ready);

  void OnNote(const std::string& note) override;
  void OnTaskStarted(int slot, const v1::TaskAssignment& assignment) override;
  void OnTaskReturned(int slot, const v1::TaskAssignment& assignment, const absl::Status& status,
                      absl::Duration duration) override;
  void OnSynchronized(const absl::Status& status, absl::Duration latency,
                      const AgentSnapshot& snapshot) override;

  // The server accepted this worker's latest call.
  bool connected() const { return connected_.load(); }

 private:
  Logger* const logger_;
  const std::function<void()> on_ready_;
  std::atomic<bool> connected_{false};
  bool ready_ = false;  // these two are used under the agent's lock only
  std::string last_error_;
  prometheus::Family<prometheus::Counter>& tasks_;
  prometheus::Family<prometheus::Histogram>& task_seconds_;
  prometheus::Family<prometheus::Counter>& synchronize_;
  prometheus::Gauge& slots_busy_;
  prometheus::Gauge& slots_free_;
  prometheus::Gauge& draining_;
  prometheus::Gauge& connected_gauge_;
  prometheus::Counter& lease_expiries_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_AGENT_WORKER_TELEMETRY_H_
