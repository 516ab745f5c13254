// Latency and failures of object stores as metrics, by operation: "is it the storage?".
//
// Thread safety: thread-safe. Ownership: borrows the registry, which outlives it; shared by the
// stores that it is told of (StoreOptions::observer).
#ifndef UNIQUANF_COMMON_TELEMETRY_STORE_METRICS_H_
#define UNIQUANF_COMMON_TELEMETRY_STORE_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <array>

#include "common/object_store/store_observer.h"

namespace uniquanf {

class StoreMetrics : public StoreObserver {
 public:
  // The metrics of every operation exist from now on, at zero.
  explicit StoreMetrics(prometheus::Registry* registry);

  void OnStoreOperation(StoreOperation operation, absl::Duration duration,
                        const absl::Status& status) override;

 private:
  std::array<prometheus::Histogram*, kNumStoreOperations> seconds_;
  std::array<prometheus::Counter*, kNumStoreOperations> errors_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_TELEMETRY_STORE_METRICS_H_
