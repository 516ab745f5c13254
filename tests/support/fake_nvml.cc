// A library with NVML's names for one GPU that is sliced (MIG), one that does not tell its
// utilization, clock and power and one in good order, to open at run time in the driver's place.
#include <cstring>

namespace {
int devices[3];
}

extern "C" {

int nvmlInit_v2() { return 0; }
int nvmlShutdown() { return 0; }

int nvmlDeviceGetHandleByPciBusId_v2(const char* id, void** device) {
  static const char* const kIds[] = {"0000:01:00.0", "0000:02:00.0", "0000:03:00.0"};
  for (int i = 0; i < 3; ++i) {
    if (std::strcmp(id, kIds[i]) != 0) continue;
    *device = &devices[i];
    return 0;
  }
  return 6;  // not found
}

int nvmlDeviceGetMemoryInfo(void* device, unsigned long long* total_free_used) {
  const auto index = static_cast<unsigned long long>(static_cast<int*>(device) - devices);
  total_free_used[0] = 80ull << 30;
  total_free_used[1] = (80ull << 30) - (index + 1);
  total_free_used[2] = index + 1;
  return 0;
}

int nvmlDeviceGetUtilizationRates(void* device, unsigned int* gpu_memory) {
  if (device == &devices[1]) return 3;  // not supported
  gpu_memory[0] = 75;
  gpu_memory[1] = 10;
  return 0;
}

int nvmlDeviceGetClockInfo(void* device, int which, unsigned int* mhz) {
  if (which != 1 || device == &devices[1]) return 3;
  *mhz = 1410;
  return 0;
}

int nvmlDeviceGetPowerUsage(void* device, unsigned int* milliwatts) {
  if (device == &devices[1]) return 3;
  *milliwatts = 697250;
  return 0;
}

int nvmlDeviceGetMigMode(void* device, unsigned int* current, unsigned int* pending) {
  *current = *pending = device == &devices[0] ? 1 : 0;
  return 0;
}

}  // extern "C"
