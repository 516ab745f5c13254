#include "worker/backend/gpu_monitor.h"

#include <dlfcn.h>

#include <utility>

namespace uniquanf {
namespace {

// The part of NVML's interface that is used here (NVML API reference: initialization, device
// queries). Versions of functions are part of their names and stay.
using Device = void*;
struct Memory {
  unsigned long long total, free, used;  // bytes
};
struct Utilization {
  unsigned int gpu, memory;  // percent
};
constexpr int kSuccess = 0;
constexpr int kSmClock = 1;  // NVML_CLOCK_SM

struct Library {
  int (*init)() = nullptr;
  int (*shutdown)() = nullptr;
  int (*device_by_pci)(const char*, Device*) = nullptr;
  int (*memory)(Device, Memory*) = nullptr;
  int (*utilization)(Device, Utilization*) = nullptr;
  // These may be null.
  int (*mig_mode)(Device, unsigned int* current, unsigned int* pending) = nullptr;
  int (*clock)(Device, int which, unsigned int* mhz) = nullptr;
  int (*power)(Device, unsigned int* milliwatts) = nullptr;
};

template <typename Function>
bool Load(void* handle, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(handle, name));
  return *function != nullptr;
}

class NvmlMonitor : public GpuMonitor {
 public:
  NvmlMonitor(void* handle, const Library& library, std::vector<std::optional<Device>> devices)
      : handle_(handle), library_(library), devices_(std::move(devices)) {}
  ~NvmlMonitor() override {
    library_.shutdown();
    dlclose(handle_);
  }

  std::vector<GpuSample> Read() override {
    std::vector<GpuSample> samples;
    for (const std::optional<Device>& device : devices_) {
      GpuSample& sample = samples.emplace_back();
      if (!device.has_value() || IsSliced(*device)) continue;
      Memory memory = {};
      if (library_.memory(*device, &memory) == kSuccess) {
        sample.used_bytes = memory.used;
        sample.total_bytes = memory.total;
      }
      Utilization utilization = {};
      if (library_.utilization(*device, &utilization) == kSuccess) {
        sample.utilization = utilization.gpu / 100.0;
      }
      unsigned int value = 0;
      if (library_.clock != nullptr && library_.clock(*device, kSmClock, &value) == kSuccess) {
        sample.sm_clock_mhz = value;
      }
      if (library_.power != nullptr && library_.power(*device, &value) == kSuccess) {
        sample.power_watts = value / 1000.0;
      }
    }
    return samples;
  }

 private:
  bool IsSliced(Device device) const {
    unsigned int current = 0, pending = 0;
    return library_.mig_mode != nullptr &&
           library_.mig_mode(device, &current, &pending) == kSuccess && current != 0;
  }

  void* const handle_;
  const Library library_;
  const std::vector<std::optional<Device>> devices_;
};

}  // namespace

std::unique_ptr<GpuMonitor> OpenGpuMonitor(const std::vector<std::string>& pci_bus_ids,
                                           const std::string& library_name) {
  if (pci_bus_ids.empty()) return nullptr;
  void* const handle = dlopen(library_name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return nullptr;
  Library library;
  Load(handle, "nvmlDeviceGetMigMode", &library.mig_mode);
  Load(handle, "nvmlDeviceGetClockInfo", &library.clock);
  Load(handle, "nvmlDeviceGetPowerUsage", &library.power);
  if (!Load(handle, "nvmlInit_v2", &library.init) ||
      !Load(handle, "nvmlShutdown", &library.shutdown) ||
      !Load(handle, "nvmlDeviceGetHandleByPciBusId_v2", &library.device_by_pci) ||
      !Load(handle, "nvmlDeviceGetMemoryInfo", &library.memory) ||
      !Load(handle, "nvmlDeviceGetUtilizationRates", &library.utilization) ||
      library.init() != kSuccess) {
    dlclose(handle);
    return nullptr;
  }
  std::vector<std::optional<Device>> devices;
  for (const std::string& id : pci_bus_ids) {
    Device device = nullptr;
    const bool known = library.device_by_pci(id.c_str(), &device) == kSuccess;
    devices.push_back(known ? std::optional<Device>(device) : std::nullopt);
  }
  return std::make_unique<NvmlMonitor>(handle, library, std::move(devices));
}

}  // namespace uniquanf
