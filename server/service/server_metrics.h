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

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/rpc/guarded_listener.h"
#include "common/telemetry/logger.h"
#include "server/http/http_counts.h"
#include "server/runtime/runtime.h"
#include "server/service/call.h"

namespace uniquanf::server {

class ServerMetrics : public RuntimeObserver, public RpcObserver {
 public:
  explicit ServerMetrics(Logger* logger);

  const std::shared_ptr<prometheus::Registry>& registry() const { return registry_; }
  // Before a scrape.
  void SetWatchStreams(int64_t num_streams);
  void SetConnections(const ConnectionCounts& counts) ABSL_LOCKS_EXCLUDED(mutex_);
  // Of the HTTP address.
  void SetHttp(const HttpCounts& counts, int num_streams);
  // Infinite: there is no certificate, and no metric.
  void SetTlsNotAfter(absl::Time time);

  void OnRecovered(const State& state, absl::Duration duration) override;
  void OnCommit(size_t num_events, bool durable, absl::Duration duration, const State& state,
                const Edits& edits) override;
  void OnCommitFailed(const absl::Status& status) override;
  // What the state looked like is gone from the metrics: the active server exports it now, and sums
  // over servers must not count it twice.
  void OnStandBy() override;
  void OnJobState(const Job& job, std::optional<JobState> before) override;
  void OnCallDone(std::string_view method, const grpc::Status& status,
                  absl::Duration latency) override;
  void OnDenied(const std::string& reason) override;
  // Of a server that asks for identities.
  void SetAccess(const AccessControl::Health& health);
  // Lines that the audit log gave up, and batches that it could not write.
  void SetAuditFailures(int64_t num_failures) ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether everybody on the network may do everything.
  void SetInsecure(bool insecure);

 private:
  void SetGauges(const State& state);
  void SetStateGauge(prometheus::Family<prometheus::Gauge>* family, double value,
                     const std::string& state = "");
  void LogHealth(const State& state, const Edits& edits);
  void NoteChecks(const State& state, const Edits& edits);
  void WatchClock(const State& state);
  void WatchQueue(const State& state);

  Logger* const logger_;
  bool clock_was_ahead_ = false;  // the writer's own
  const std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Family<prometheus::Gauge>& jobs_;
  prometheus::Family<prometheus::Gauge>& tasks_;
  prometheus::Family<prometheus::Counter>& failures_;
  prometheus::Family<prometheus::Counter>& rpcs_;
  prometheus::Family<prometheus::Histogram>& rpc_latency_;
  prometheus::Family<prometheus::Gauge>& unschedulable_;
  prometheus::Family<prometheus::Gauge>& workers_;
  prometheus::Family<prometheus::Gauge>& quarantined_;
  prometheus::Family<prometheus::Gauge>& clock_ahead_;
  prometheus::Family<prometheus::Gauge>& garbage_;
  prometheus::Family<prometheus::Gauge>& longest_wait_;
  absl::Duration watched_queue_at_;  // the writer's own
  // Of the state, there while this server is the active one. The writer's thread only.
  std::map<std::pair<prometheus::Family<prometheus::Gauge>*, std::string>, prometheus::Gauge*>
      state_gauges_;
  prometheus::Gauge& watch_streams_;
  prometheus::Gauge& recovery_seconds_;
  prometheus::Counter& leases_;
  prometheus::Counter& expired_leases_;
  prometheus::Counter& tasks_succeeded_;
  prometheus::Counter& results_lost_;
  prometheus::Counter& checks_same_;
  prometheus::Counter& checks_different_;
  prometheus::Counter& checks_abandoned_;
  prometheus::Counter& clock_jumps_;
  prometheus::Counter& commit_failures_;
  prometheus::Histogram& lease_latency_;
  prometheus::Histogram& commit_latency_;
  prometheus::Histogram& commit_events_;
  prometheus::Gauge& connections_;
  prometheus::Counter& connections_accepted_;
  prometheus::Counter& connections_refused_total_;
  prometheus::Counter& connections_refused_peer_;
  prometheus::Counter& failed_accepts_;
  absl::Mutex mutex_;
  ConnectionCounts last_ ABSL_GUARDED_BY(mutex_);
  int64_t last_audit_failures_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_SERVICE_SERVER_METRICS_H_
