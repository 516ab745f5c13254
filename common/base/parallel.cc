#include "common/base/parallel.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "common/base/machine_resources.h"

namespace uniquanf {

void ParallelRanges(int64_t size, int64_t grain, const std::function<void(int64_t, int64_t)>& fn) {
  const int64_t num_pieces = (size + grain - 1) / grain;
  static const int num_cpus = ReadMachineResources().num_cpus;  // read once: many calls are short
  const int64_t num_threads = std::min<int64_t>(num_pieces, num_cpus);
  std::atomic<int64_t> next{0};
  const auto run = [&] {
    for (int64_t piece = next.fetch_add(1); piece < num_pieces; piece = next.fetch_add(1)) {
      fn(piece * grain, std::min(size, (piece + 1) * grain));
    }
  };
  std::vector<std::thread> threads;
  for (int64_t i = 1; i < num_threads; ++i) threads.emplace_back(run);
  run();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace uniquanf
