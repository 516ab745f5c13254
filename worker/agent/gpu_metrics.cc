#include "worker/agent/gpu_metrics.h"

#include <string>
#include <utility>

namespace uniquanf {
namespace {

prometheus::Family<prometheus::Gauge>& MakeFamily(prometheus::Registry* registry, const char* name,
                                                  const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(*registry);
}

}  // namespace

GpuMetrics::GpuMetrics(prometheus::Registry* registry, std::unique_ptr<GpuMonitor> monitor)
    : monitor_(std::move(monitor)),
      used_bytes_(MakeFamily(registry, "uniquanf_worker_gpu_memory_used_bytes",
                             "Memory of the GPU that is in use, by all processes")),
      total_bytes_(
          MakeFamily(registry, "uniquanf_worker_gpu_memory_total_bytes", "Memory of the GPU")),
      utilization_(MakeFamily(registry, "uniquanf_worker_gpu_utilization_ratio",
                              "Share of the last second or so in which the GPU worked, 0 to 1")) {}

void GpuMetrics::Update() {
  if (monitor_ == nullptr) return;
  const std::vector<GpuSample> samples = monitor_->Read();
  for (size_t i = 0; i < samples.size(); ++i) {
    const GpuSample& sample = samples[i];
    const prometheus::Labels labels = {{"gpu", std::to_string(i)}};
    if (sample.used_bytes) used_bytes_.Add(labels).Set(static_cast<double>(*sample.used_bytes));
    if (sample.total_bytes) total_bytes_.Add(labels).Set(static_cast<double>(*sample.total_bytes));
    if (sample.utilization) utilization_.Add(labels).Set(*sample.utilization);
  }
}

}  // namespace uniquanf
