// What is known of any process: the build it is, processor time, memory, file descriptors, start.
// Names and units are those of Prometheus' client libraries, so that common dashboards find them.
//
// Thread safety: thread-safe. Ownership: borrows the registry, which outlives it.
#ifndef UNIQUANF_COMMON_TELEMETRY_PROCESS_METRICS_H_
#define UNIQUANF_COMMON_TELEMETRY_PROCESS_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace uniquanf {

class ProcessMetrics {
 public:
  // `program` becomes a label of uniquanf_build_info.
  ProcessMetrics(prometheus::Registry* registry, const std::string& program);

  // Before a scrape. What /proc does not tell keeps its last value.
  void Update() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  prometheus::Counter& cpu_seconds_;
  prometheus::Gauge& resident_bytes_;
  prometheus::Gauge& virtual_bytes_;
  prometheus::Gauge& open_files_;
  prometheus::Gauge& max_files_;
  prometheus::Gauge& start_time_;
  absl::Mutex mutex_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_TELEMETRY_PROCESS_METRICS_H_
