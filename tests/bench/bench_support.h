// What the benchmarks share: shapes of known blocks, random tensors, clocks, flags. Single thread.
#ifndef UNIQUANF_TESTS_BENCH_BENCH_SUPPORT_H_
#define UNIQUANF_TESTS_BENCH_BENCH_SUPPORT_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "worker/backend/gpu_monitor.h"
#include "worker/backend/tensor.h"
#include "worker/block/block.h"
#include "worker/block/block_traits.h"

namespace uniquanf::bench {

// --name=value flags; anything else, or a flag that is not in `known` (name → help with default),
// prints the help and ends the process.
class Flags {
 public:
  Flags(int argc, char** argv, const std::string& purpose,
        const std::map<std::string, std::string>& known);
  std::string Text(const std::string& name, const std::string& otherwise) const;
  int64_t Number(const std::string& name, int64_t otherwise) const;

 private:
  std::map<std::string, std::string> values_;
};
// Flags that ShapeOf and BackendOf read, with their help.
std::map<std::string, std::string> CommonFlags();

// --shape (llama3-8b, llama3-70b, small, tiny), each number of it replaceable by a flag.
BlockTraits ShapeOf(const Flags& flags);
// --device=cuda (default where there is one), cpu. Ends the process when it cannot be opened.
std::unique_ptr<Backend> BackendOf(const Flags& flags);
// bf16 on CUDA unless --act=f32; f32 on the CPU.
DType ActOf(const Flags& flags, const Backend& backend);

// Normal values; a pattern of some millions repeats in large tensors.
Tensor Random(Backend* backend, DType dtype, Shape shape, double deviation, uint64_t seed);
Tensor Empty(Backend* backend, DType dtype, Shape shape);
// Rotary tables for theta 500000.
RopeTable MakeRope(Backend* backend, int head_dim, int64_t seq_len);

// Ends the process with a message when the status is not OK.
void Check(const absl::Status& status);
template <typename T>
T Take(absl::StatusOr<T> value) {
  Check(value.status());
  return *std::move(value);
}

// A time, and what the device was like while it was taken; 0: the driver does not tell.
struct Timing {
  double ms = 0;  // of one call
  double sm_mhz = 0, watts = 0;
};
// "1410 MHz, 697 W".
std::string ClockText(const Timing& timing);
// "   3.512 ms  (1410 MHz, 697 W)".
std::string TimingText(const Timing& timing);

// Takes times of a hot device: a GPU that has worked for seconds is limited by its power and runs
// slower than in its first second (RESULTS.md).
class Meter {
 public:
  // On CUDA every measurement begins with --warm_up seconds of the same work.
  Meter(Backend* backend, const Flags& flags);
  // The median over `rounds` rounds of `calls` calls each, the device waited for at the end of a
  // round; calls = 0: as many as take 50 ms.
  Timing Measure(const std::function<void()>& issue, int rounds = 10, int calls = 0);
  // Bytes read and written per second by a large copy on the device.
  double CopyBandwidth();

 private:
  double RoundMs(const std::function<void()>& issue, int calls);

  Backend* const backend_;
  double warm_up_seconds_ = 0;
  std::unique_ptr<GpuMonitor> monitor_;  // null: no GPU, or no driver's library
};

}  // namespace uniquanf::bench

#endif  // UNIQUANF_TESTS_BENCH_BENCH_SUPPORT_H_
