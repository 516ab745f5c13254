#include "worker/agent/cache_metrics.h"

namespace uniquanf {
namespace {

prometheus::Counter& MakeCounter(prometheus::Registry* registry, const char* name,
                                 const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(*registry).Add({});
}

// Counters know increments only.
void Add(prometheus::Counter* counter, uint64_t now, uint64_t before) {
  counter->Increment(static_cast<double>(now - before));
}

}  // namespace

CacheMetrics::CacheMetrics(prometheus::Registry* registry)
    : hits_(MakeCounter(registry, "uniquanf_worker_cache_hits_total",
                        "Reads of remote objects that the cache served")),
      misses_(MakeCounter(registry, "uniquanf_worker_cache_misses_total",
                          "Reads of remote objects that asked the store")),
      hit_bytes_(MakeCounter(registry, "uniquanf_worker_cache_hit_bytes_total",
                             "Bytes that the cache served")),
      fetched_bytes_(MakeCounter(registry, "uniquanf_worker_cache_fetched_bytes_total",
                                 "Bytes that came from the store")),
      evictions_(MakeCounter(registry, "uniquanf_worker_cache_evictions_total",
                             "Pieces that this worker removed to make room")),
      damaged_(MakeCounter(registry, "uniquanf_worker_cache_damaged_total",
                           "Cached pieces that were damaged and fetched again")),
      failed_writes_(MakeCounter(registry, "uniquanf_worker_cache_failed_writes_total",
                                 "Pieces that could not be written to the cache")),
      stored_bytes_(prometheus::BuildGauge()
                        .Name("uniquanf_worker_cache_bytes")
                        .Help("Bytes on the cache's disk, as far as this worker knows")
                        .Register(*registry)
                        .Add({})) {}

void CacheMetrics::Update(const ObjectCacheCounts& counts) {
  absl::MutexLock lock(&mutex_);
  Add(&hits_, counts.hits, last_.hits);
  Add(&misses_, counts.misses, last_.misses);
  Add(&hit_bytes_, counts.hit_bytes, last_.hit_bytes);
  Add(&fetched_bytes_, counts.fetched_bytes, last_.fetched_bytes);
  Add(&evictions_, counts.files.evictions, last_.files.evictions);
  Add(&damaged_, counts.files.damaged, last_.files.damaged);
  Add(&failed_writes_, counts.files.failed_writes, last_.files.failed_writes);
  stored_bytes_.Set(static_cast<double>(counts.files.stored_bytes));
  last_ = counts;
}

}  // namespace uniquanf
