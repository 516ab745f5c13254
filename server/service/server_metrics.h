// The server's metrics and log records. Labels are bounded: states, classes, methods and codes,
// never a job, task, layer, tenant or worker.
//
// Thread safety: thread-safe. Lifetime: borrows the logger.
#ifndef UNIQUANF_SERVER_SERVICE_SERVER_METRICS_H_
#define UNIQUANF_SERVER_SERVICE_SERVER_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <memory>

#include "common/telemetry/logger.h"
#include "server/runtime/runtime.h"
#include "server/service/call.h"

namespace uniquanf::server {

class ServerMetrics : public RuntimeObserver, public RpcObserver {
 public:
  explicit ServerMetrics(Logger* logger);

  const std::shared_ptr<prometheus::Registry>& registry() const { return registry_; }
  // Before a scrape.
  void SetWatchStreams(int64_t num_streams);

  void OnRecovered(const State& state, absl::Duration duration) override;
  void OnCommit(size_t num_events, bool durable, absl::Duration duration, const State& state,
                const Edits& edits) override;
  void OnCommitFailed(const absl::Status& status) override;
  void OnJobState(const Job& job, std::optional<JobState> before) override;
  void OnCallDone(const char* method, const grpc::Status& status, absl::Duration latency) override;

 private:
  void SetGauges(const State& state);

  Logger* const logger_;
  const std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Family<prometheus::Gauge>& jobs_;
  prometheus::Family<prometheus::Gauge>& tasks_;
  prometheus::Family<prometheus::Counter>& failures_;
  prometheus::Family<prometheus::Counter>& rpcs_;
  prometheus::Family<prometheus::Histogram>& rpc_latency_;
  prometheus::Gauge& unschedulable_;
  prometheus::Gauge& workers_;
  prometheus::Gauge& garbage_;
  prometheus::Gauge& watch_streams_;
  prometheus::Gauge& recovery_seconds_;
  prometheus::Counter& leases_;
  prometheus::Counter& expired_leases_;
  prometheus::Counter& tasks_succeeded_;
  prometheus::Counter& commit_failures_;
  prometheus::Histogram& lease_latency_;
  prometheus::Histogram& commit_latency_;
  prometheus::Histogram& commit_events_;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_SERVICE_SERVER_METRICS_H_
