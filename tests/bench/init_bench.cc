// Time to initialize all quantizers of one block, for each grid size asked for.
#include <cstdio>

#include "tests/bench/bench_support.h"
#include "worker/quant/quantizer.h"

namespace uniquanf::bench {
namespace {

int Main(int argc, char** argv) {
  std::map<std::string, std::string> known = CommonFlags();
  known["bits"] = "bits a weight, 2..8 (4)";
  known["group_size"] = "columns a group; 0 is the whole row (0)";
  known["grid"] = "steps of the grid search (1)";
  known["rounds"] = "rounds of the alternating update (15)";
  const Flags flags(argc, argv, "Times the initialization of a block's quantizers.", known);
  std::unique_ptr<Backend> backend = BackendOf(flags);
  const BlockSpec block = BuildBlock(ShapeOf(flags));
  const DType act = ActOf(flags, *backend);
  const int bits = static_cast<int>(flags.Number("bits", 4));
  quant::InitOptions options;
  options.grid_steps = static_cast<int>(flags.Number("grid", 1));
  options.alternating_rounds = static_cast<int>(flags.Number("rounds", 15));
  Meter meter(backend.get(), flags);
  double total_ms = 0;
  for (int l = 0; l < block.num_linears(); ++l) {
    const auto [n, k] = block.LinearShape(l);
    const int64_t g = flags.Number("group_size", 0);
    quant::QuantizerState state = Take(quant::NewQuantizerState(
        backend.get(), Random(backend.get(), act, {n, k}, 0.02, 1), bits, g == 0 ? k : g, {}));
    const Timing timing = meter.Measure(
        [&] { quant::InitializeUnified(backend.get(), options, &state); }, /*rounds=*/3);
    std::printf("  %-28s %s\n", block.linear(l).module.c_str(), TimingText(timing).c_str());
    total_ms += timing.ms;
  }
  std::printf("initialization of a block, %d bits, grid of %d: %.1f ms\n", bits, options.grid_steps,
              total_ms);
  return 0;
}

}  // namespace
}  // namespace uniquanf::bench

int main(int argc, char** argv) { return uniquanf::bench::Main(argc, argv); }
