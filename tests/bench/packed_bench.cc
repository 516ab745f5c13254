// Decoding and prefill from packed weights: the linear layers of some decoder layers of a known
// shape, one after the other, so that weights come from memory and not from a cache; against the
// bandwidth of a copy and against the same products with dequantized weights.
#include <cstdio>
#include <cstring>
#include <random>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "tests/bench/bench_support.h"
#include "worker/ops/op.h"
#include "worker/packed/packed_linear.h"

namespace uniquanf::bench {
namespace {

// Layers that share an input: one launch each.
struct Set {
  const char* name;
  std::vector<int64_t> num_outputs;
  int64_t num_inputs;
};

std::vector<Set> SetsOf(const std::string& shape) {
  const auto sets = [](int64_t hidden, int64_t mlp, int64_t q, int64_t kv) {
    return std::vector<Set>{{"q,k,v", {q, kv, kv}, hidden},
                            {"o", {hidden}, q},
                            {"gate,up", {mlp, mlp}, hidden},
                            {"down", {hidden}, mlp}};
  };
  if (shape == "llama3-8b") return sets(4096, 14336, 4096, 1024);
  if (shape == "llama3-70b") return sets(8192, 28672, 8192, 1024);
  if (shape == "small") return sets(512, 1408, 512, 256);
  std::fprintf(stderr, "unknown --shape=%s; llama3-8b, llama3-70b or small\n", shape.c_str());
  std::exit(2);
}

// Random planes, and scales of the size that real weights have.
PackedLinear RandomLayer(int bits, int64_t N, int64_t K, int64_t group_size, uint64_t seed) {
  PackedLinear layer;
  layer.bits = bits;
  layer.num_outputs = N;
  layer.num_inputs = K;
  layer.group_size = group_size == 0 ? K : group_size;
  constexpr size_t kPattern = 1000003;
  std::mt19937 generator(static_cast<uint32_t>(seed));
  layer.qweight.resize(layer.words_per_row() * bits * N);
  for (size_t i = 0; i < layer.qweight.size(); ++i) {
    layer.qweight[i] =
        i < kPattern ? static_cast<int32_t>(generator()) : layer.qweight[i - kPattern];
  }
  layer.alpha.resize(layer.groups_per_row() * bits * N);
  layer.beta.resize(layer.groups_per_row() * N);
  for (uint16_t& value : layer.alpha) value = 0x2000 + generator() % 0x400;  // 2^-7 … 2^-6
  for (uint16_t& value : layer.beta) value = 0x1000 + generator() % 0x400;
  return layer;
}

struct Layers {
  std::vector<std::vector<packed::PackedWeights>> sets;  // [layer · sets + set][member]
  int64_t packed_bytes = 0;                              // of one layer: planes, scales and shifts
};

class Bench {
 public:
  Bench(Backend* backend, DType act, std::vector<Set> sets, int num_layers, Meter* meter)
      : backend_(backend),
        act_(act),
        sets_(std::move(sets)),
        num_layers_(num_layers),
        meter_(meter) {
    int64_t max_outputs = 0, max_inputs = 0;
    for (const Set& set : sets_) {
      max_inputs = std::max(max_inputs, set.num_inputs);
      for (int64_t n : set.num_outputs) max_outputs = std::max(max_outputs, n);
    }
    workspace_ = Take(packed::Workspace::Create(backend, act, max_outputs, max_inputs));
  }

  Layers Make(int bits, int64_t group_size) {
    Layers layers;
    for (int layer = 0; layer < num_layers_; ++layer) {
      for (const Set& set : sets_) {
        std::vector<packed::PackedWeights> members;
        for (int64_t n : set.num_outputs) {
          members.push_back(Take(packed::Upload(
              backend_, RandomLayer(bits, n, set.num_inputs, group_size, layer * 31 + n))));
          if (layer == 0) layers.packed_bytes += members.back().size_bytes();
        }
        layers.sets.push_back(std::move(members));
      }
    }
    return layers;
  }

  // One pass over all layers with `tokens` tokens, a layer.
  Timing TimePacked(const Layers& layers, int64_t tokens) {
    std::vector<Tensor> inputs;
    std::vector<std::vector<Tensor>> outputs;
    MakeActivations(tokens, &inputs, &outputs);
    return Time([&] {
      for (size_t i = 0; i < layers.sets.size(); ++i) {
        const size_t set = i % sets_.size();
        std::vector<packed::Product> products;
        for (size_t m = 0; m < layers.sets[i].size(); ++m) {
          products.push_back({&layers.sets[i][m], nullptr, &outputs[set][m]});
        }
        packed::LinearForward(backend_, inputs[set], products, &workspace_);
      }
    });
  }

  // The same with full weights.
  Timing TimeDense(int64_t tokens) {
    std::vector<Tensor> inputs;
    std::vector<std::vector<Tensor>> outputs;
    MakeActivations(tokens, &inputs, &outputs);
    std::vector<std::vector<Tensor>> weights;
    for (int layer = 0; layer < num_layers_; ++layer) {
      for (const Set& set : sets_) {
        weights.emplace_back();
        for (int64_t n : set.num_outputs) {
          weights.back().push_back(
              Random(backend_, act_, {n, set.num_inputs}, 0.02, layer * 31 + n));
        }
      }
    }
    return Time([&] {
      for (size_t i = 0; i < weights.size(); ++i) {
        const size_t set = i % sets_.size();
        for (size_t m = 0; m < weights[i].size(); ++m) {
          ops::LinearForward(backend_, inputs[set], weights[i][m], nullptr, &outputs[set][m]);
        }
      }
    });
  }

 private:
  void MakeActivations(int64_t tokens, std::vector<Tensor>* inputs,
                       std::vector<std::vector<Tensor>>* outputs) {
    for (const Set& set : sets_) {
      inputs->push_back(Random(backend_, act_, {tokens, set.num_inputs}, 1, 5));
      outputs->emplace_back();
      for (int64_t n : set.num_outputs) {
        outputs->back().push_back(Empty(backend_, act_, {tokens, n}));
      }
    }
  }

  Timing Time(const std::function<void()>& issue) {
    std::unique_ptr<CapturedSequence> sequence;
    Timing timing = meter_->Measure([&] { Check(backend_->RunCaptured(&sequence, issue)); });
    timing.ms /= num_layers_;
    return timing;
  }

  Backend* backend_;
  DType act_;
  std::vector<Set> sets_;
  int num_layers_;
  Meter* const meter_;
  packed::Workspace workspace_;
};

int Main(int argc, char** argv) {
  std::map<std::string, std::string> known;
  known["shape"] = "llama3-8b (default), llama3-70b or small";
  known["device"] = "cuda (default where there is one) or cpu";
  known["act"] = "bf16 (default on CUDA) or f32";
  known["bits"] = "numbers of bits, with commas (4,3,2)";
  known["group_sizes"] = "columns a group, with commas; 0 is the whole row (0,128)";
  known["layers"] = "decoder layers that are walked through (8)";
  known["prefill"] = "tokens of the prefill; 0: none (2048)";
  known["warm_up"] = CommonFlags()["warm_up"];
  known["dense"] = "1: time the dequantized weights too (1)";
  const Flags flags(argc, argv, "Times products with packed weights.", known);
  std::unique_ptr<Backend> backend = BackendOf(flags);
  const DType act = ActOf(flags, *backend);
  Meter meter(backend.get(), flags);
  Bench bench(backend.get(), act, SetsOf(flags.Text("shape", "llama3-8b")),
              static_cast<int>(flags.Number("layers", 8)), &meter);
  const double copy = meter.CopyBandwidth();
  const int64_t prefill = flags.Number("prefill", 2048);
  std::printf("%s, %s; copy: %.0f GB/s read and written\n", backend->description().c_str(),
              DTypeName(act), copy / 1e9);
  const std::vector<std::string> all_bits = absl::StrSplit(flags.Text("bits", "4,3,2"), ',');
  const std::vector<std::string> groups = absl::StrSplit(flags.Text("group_sizes", "0,128"), ',');
  for (const std::string& bits : all_bits) {
    for (const std::string& group : groups) {
      const Layers layers = bench.Make(std::atoi(bits.c_str()), std::atoll(group.c_str()));
      const Timing timing = bench.TimePacked(layers, 1);
      const double rate = static_cast<double>(layers.packed_bytes) / (timing.ms * 1e-3);
      std::printf(
          "decode  %s bits, groups of %4s: %8.4f ms a layer, %7.1f MB, %6.0f GB/s = %.1f%%"
          " of the copy (%s)\n",
          bits.c_str(), group.c_str(), timing.ms, layers.packed_bytes / 1e6, rate / 1e9,
          100 * rate / copy, ClockText(timing).c_str());
      if (prefill > 0) {
        const Timing filled = bench.TimePacked(layers, prefill);
        std::printf("prefill %s bits, groups of %4s: %8.4f ms a layer, %lld tokens (%s)\n",
                    bits.c_str(), group.c_str(), filled.ms, static_cast<long long>(prefill),
                    ClockText(filled).c_str());
      }
    }
  }
  if (flags.Number("dense", 1) != 0) {
    const Timing decode = bench.TimeDense(1);
    std::printf("dense   decode %.4f ms a layer (%s)\n", decode.ms, ClockText(decode).c_str());
    if (prefill > 0) {
      const Timing filled = bench.TimeDense(prefill);
      std::printf("dense   prefill %.4f ms a layer (%s)\n", filled.ms, ClockText(filled).c_str());
    }
  }
  return 0;
}

}  // namespace
}  // namespace uniquanf::bench

int main(int argc, char** argv) { return uniquanf::bench::Main(argc, argv); }
