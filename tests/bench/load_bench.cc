// Speed of reading a checkpoint's layers from storage and of putting them on the device.
#include <chrono>
#include <cstdio>

#include "tests/bench/bench_support.h"
#include "worker/model/checkpoint.h"

namespace uniquanf::bench {
namespace {

double Seconds(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int Main(int argc, char** argv) {
  std::map<std::string, std::string> known = {
      {"model", "checkpoint folder or s3:// address (needed; synthetic_checkpoint writes one)"},
      {"layers", "layers to read (all)"},
      {"device", "cuda (default where there is one) or cpu"},
      {"act", "bf16 (default on CUDA) or f32"}};
  const Flags flags(argc, argv, "Times reading a checkpoint's layers.", known);
  const std::string model = flags.Text("model", "");
  if (model.empty()) {
    std::fprintf(stderr, "--model=FOLDER is needed\n");
    return 2;
  }
  std::unique_ptr<Backend> backend = BackendOf(flags);
  const DType act = ActOf(flags, *backend);
  std::unique_ptr<Checkpoint> checkpoint =
      Take(Checkpoint::Open(Take(OpenObjectStore(model)), /*allow_quantized=*/true));
  const int64_t layers = flags.Number("layers", checkpoint->config().num_layers);
  for (int layer = 0; layer < layers; ++layer) {
    HostBlock block;
    const double read = Seconds([&] { block = Take(checkpoint->LoadBlock(layer)); });
    double weights = 0;
    for (const std::vector<float>& tensor : block) weights += tensor.size();
    const double upload = Seconds([&] {
      BlockWeights on_device =
          Take(UploadBlock(backend.get(), checkpoint->config().blocks[layer], act, block));
      Check(backend->Synchronize());
    });
    std::printf(
        "layer %d: %.1f M weights, read in %.2f s (%.2f GB/s of bf16), uploaded in %.2f s\n", layer,
        weights * 1e-6, read, weights * 2e-9 / read, upload);
  }
  return 0;
}

}  // namespace
}  // namespace uniquanf::bench

int main(int argc, char** argv) { return uniquanf::bench::Main(argc, argv); }
