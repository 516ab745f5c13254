#include "common/telemetry/store_metrics.h"

namespace uniquanf {
namespace {

// From a small local read to a request that is retried until it is given up.
const prometheus::Histogram::BucketBoundaries kLatency = {
    0.0001, 0.0005, 0.002, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300};

}  // namespace

StoreMetrics::StoreMetrics(prometheus::Registry* registry) {
  auto& seconds =
      prometheus::BuildHistogram()
          .Name("uniquanf_object_store_seconds")
          .Help("Time of an operation on an object store, retries included, by operation")
          .Register(*registry);
  auto& errors = prometheus::BuildCounter()
                     .Name("uniquanf_object_store_errors_total")
                     .Help(
                         "Operations that an object store failed, after all retries; an object "
                         "that is not there is no failure")
                     .Register(*registry);
  for (int i = 0; i < kNumStoreOperations; ++i) {
    const char* const name = StoreOperationName(static_cast<StoreOperation>(i));
    seconds_[i] = &seconds.Add({{"operation", name}}, kLatency);
    errors_[i] = &errors.Add({{"operation", name}});
  }
}

void StoreMetrics::OnStoreOperation(StoreOperation operation, absl::Duration duration,
                                    const absl::Status& status) {
  const auto index = static_cast<size_t>(operation);
  seconds_[index]->Observe(absl::ToDoubleSeconds(duration));
  if (IsStoreFailure(status)) errors_[index]->Increment();
}

}  // namespace uniquanf
