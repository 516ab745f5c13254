// Memory, utilization, clock and power of GPUs as the driver's management library (NVML) knows
// them. The library is opened at run time: a machine without a driver has none, and a program that
// is built without CUDA needs none. It answers also while a device is busy or hangs, which the CUDA
// runtime does not.
//
// Thread safety: thread-safe. Errors: none; what the driver does not tell is nullopt. Of a slice of
// a GPU (MIG) it tells nothing: its numbers would be the whole GPU's.
#ifndef UNIQUANF_WORKER_BACKEND_GPU_MONITOR_H_
#define UNIQUANF_WORKER_BACKEND_GPU_MONITOR_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace uniquanf {

// Where the device lies, such as "0000:1B:00.0"; "" where it is not known. CUDA's numbers of
// devices and NVML's differ.
std::string CudaPciBusId(int device_index);

struct GpuSample {
  std::optional<uint64_t> used_bytes;  // by all processes
  std::optional<uint64_t> total_bytes;
  std::optional<double> utilization;   // 0..1: share of the last second or so in which it worked
  std::optional<double> sm_clock_mhz;  // of the multiprocessors, now
  std::optional<double> power_watts;
};

class GpuMonitor {
 public:
  virtual ~GpuMonitor() = default;
  // One for each device, in the order of `pci_bus_ids`.
  virtual std::vector<GpuSample> Read() = 0;
};

// Null where there is no device, no library, or a library that does not start.
// `pci_bus_ids`: of the devices (CudaPciBusId).
std::unique_ptr<GpuMonitor> OpenGpuMonitor(const std::vector<std::string>& pci_bus_ids,
                                           const std::string& library = "libnvidia-ml.so.1");

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_BACKEND_GPU_MONITOR_H_
