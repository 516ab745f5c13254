// Memory and utilization of the worker's GPUs as metrics. A series exists from the first time on
// that the driver tells its value: none on a worker without a GPU.
//
// Thread safety: thread-safe. Ownership: borrows the registry, which outlives it.
#ifndef UNIQUANF_WORKER_AGENT_GPU_METRICS_H_
#define UNIQUANF_WORKER_AGENT_GPU_METRICS_H_

#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <memory>

#include "worker/backend/gpu_monitor.h"

namespace uniquanf {

class GpuMetrics {
 public:
  // `monitor`: null where there is no GPU. Label "gpu": the slot's number.
  GpuMetrics(prometheus::Registry* registry, std::unique_ptr<GpuMonitor> monitor);

  // Before a scrape.
  void Update();

 private:
  const std::unique_ptr<GpuMonitor> monitor_;
  prometheus::Family<prometheus::Gauge>& used_bytes_;
  prometheus::Family<prometheus::Gauge>& total_bytes_;
  prometheus::Family<prometheus::Gauge>& utilization_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_AGENT_GPU_METRICS_H_
