// The object cache's counts as metrics: "is the cache worth its disk?".
//
// Thread safety: thread-safe. Ownership: borrows the registry, which outlives it.
#ifndef UNIQUANF_WORKER_AGENT_CACHE_METRICS_H_
#define UNIQUANF_WORKER_AGENT_CACHE_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/object_store/object_cache.h"

namespace uniquanf {

class CacheMetrics {
 public:
  // The metrics exist from now on, at zero, whether there is a cache or not.
  explicit CacheMetrics(prometheus::Registry* registry);

  // `counts` of the one cache that this is for, before a scrape.
  void Update(const ObjectCacheCounts& counts);

 private:
  absl::Mutex mutex_;
  ObjectCacheCounts last_ ABSL_GUARDED_BY(mutex_);
  prometheus::Counter& hits_;
  prometheus::Counter& misses_;
  prometheus::Counter& hit_bytes_;
  prometheus::Counter& fetched_bytes_;
  prometheus::Counter& evictions_;
  prometheus::Counter& damaged_;
  prometheus::Counter& failed_writes_;
  prometheus::Gauge& stored_bytes_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_AGENT_CACHE_METRICS_H_
