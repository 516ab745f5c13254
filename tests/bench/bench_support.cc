#include "tests/bench/bench_support.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "absl/strings/str_format.h"

namespace uniquanf::bench {

Flags::Flags(int argc, char** argv, const std::string& purpose,
             const std::map<std::string, std::string>& known) {
  const auto help = [&](int code) {
    std::fprintf(code == 0 ? stdout : stderr, "%s\n\n", purpose.c_str());
    for (const auto& [name, text] : known) {
      std::fprintf(code == 0 ? stdout : stderr, "  --%s  %s\n", name.c_str(), text.c_str());
    }
    std::exit(code);
  };
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--help") help(0);
    const size_t equals = argument.find('=');
    if (argument.rfind("--", 0) != 0 || equals == std::string::npos ||
        known.count(argument.substr(2, equals - 2)) == 0) {
      std::fprintf(stderr, "unknown argument \"%s\"; flags are --name=value:\n", argv[i]);
      help(2);
    }
    values_[argument.substr(2, equals - 2)] = argument.substr(equals + 1);
  }
}

std::string Flags::Text(const std::string& name, const std::string& otherwise) const {
  auto it = values_.find(name);
  return it == values_.end() ? otherwise : it->second;
}

int64_t Flags::Number(const std::string& name, int64_t otherwise) const {
  auto it = values_.find(name);
  if (it == values_.end()) return otherwise;
  char* end = nullptr;
  const int64_t value = std::strtoll(it->second.c_str(), &end, 10);
  if (end == it->second.c_str() || *end != '\0' || value < 0) {
    std::fprintf(stderr, "--%s=%s is not a whole number\n", name.c_str(), it->second.c_str());
    std::exit(2);
  }
  return value;
}

std::map<std::string, std::string> CommonFlags() {
  return {{"shape", "llama3-8b (default), llama3-70b, small or tiny"},
          {"hidden", "hidden size, instead of the shape's"},
          {"intermediate", "MLP size, instead of the shape's"},
          {"heads", "query heads, instead of the shape's"},
          {"kv_heads", "key/value heads, instead of the shape's"},
          {"head_dim", "head size, instead of the shape's"},
          {"device", "cuda (default where there is one) or cpu"},
          {"act", "bf16 (default on CUDA) or f32"},
          {"warm_up", "seconds of the same work before a time is taken on CUDA (4)"}};
}

BlockTraits ShapeOf(const Flags& flags) {
  const std::string name = flags.Text("shape", "llama3-8b");
  BlockTraits config;
  const auto set = [&](int64_t hidden, int64_t intermediate, int heads, int kv_heads, int dim) {
    config.hidden_size = hidden;
    config.mlp.size = intermediate;
    config.attention.num_heads = heads;
    config.attention.num_kv_heads = kv_heads;
    config.attention.head_dim = dim;
  };
  if (name == "llama3-8b") {
    set(4096, 14336, 32, 8, 128);
  } else if (name == "llama3-70b") {
    set(8192, 28672, 64, 8, 128);
  } else if (name == "small") {
    set(1024, 2816, 16, 8, 64);
  } else if (name == "tiny") {
    set(256, 704, 4, 2, 64);
  } else {
    std::fprintf(stderr, "unknown --shape=%s\n", name.c_str());
    std::exit(2);
  }
  config.hidden_size = flags.Number("hidden", config.hidden_size);
  config.mlp.size = flags.Number("intermediate", config.mlp.size);
  AttentionTraits& attention = config.attention;
  attention.num_heads = static_cast<int>(flags.Number("heads", attention.num_heads));
  attention.num_kv_heads = static_cast<int>(flags.Number("kv_heads", attention.num_kv_heads));
  attention.head_dim = static_cast<int>(flags.Number("head_dim", attention.head_dim));
  return config;
}

std::unique_ptr<Backend> BackendOf(const Flags& flags) {
  const std::string device = flags.Text("device", NumCudaDevices() > 0 ? "cuda" : "cpu");
  if (device == "cpu") return NewCpuBackend({});
  return Take(NewCudaBackend(0));
}

DType ActOf(const Flags& flags, const Backend& backend) {
  if (backend.kind() == DeviceKind::kCpu) return DType::kFloat32;
  return flags.Text("act", "bf16") == "f32" ? DType::kFloat32 : DType::kBfloat16;
}

Tensor Random(Backend* backend, DType dtype, Shape shape, double deviation, uint64_t seed) {
  constexpr int64_t kPattern = 4000037;  // prime, so that rows do not repeat
  std::mt19937 generator(static_cast<uint32_t>(seed));
  std::normal_distribution<float> normal(0, static_cast<float>(deviation));
  int64_t count = 1;
  for (int64_t dim : shape) count *= dim;
  std::vector<float> values(count);
  for (int64_t i = 0; i < std::min(count, kPattern); ++i) values[i] = normal(generator);
  for (int64_t i = kPattern; i < count; ++i) values[i] = values[i - kPattern];
  return Take(Tensor::FromFloats(backend, dtype, std::move(shape), values.data()));
}

Tensor Empty(Backend* backend, DType dtype, Shape shape) {
  return Take(Tensor::Allocate(backend, dtype, std::move(shape)));
}

RopeTable MakeRope(Backend* backend, int head_dim, int64_t seq_len) {
  const int half = head_dim / 2;
  std::vector<float> cos(seq_len * half), sin(seq_len * half);
  for (int64_t t = 0; t < seq_len; ++t) {
    for (int i = 0; i < half; ++i) {
      const double angle = static_cast<double>(t) * std::pow(500000.0, -2.0 * i / head_dim);
      cos[t * half + i] = static_cast<float>(std::cos(angle));
      sin[t * half + i] = static_cast<float>(std::sin(angle));
    }
  }
  return {Take(Tensor::FromFloats(backend, DType::kFloat32, {seq_len, half}, cos.data())),
          Take(Tensor::FromFloats(backend, DType::kFloat32, {seq_len, half}, sin.data()))};
}

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  std::exit(1);
}

std::string ClockText(const Timing& timing) {
  if (timing.sm_mhz <= 0 && timing.watts <= 0) return "clock unknown";
  return absl::StrFormat("%.0f MHz, %.0f W", timing.sm_mhz, timing.watts);
}

std::string TimingText(const Timing& timing) {
  return absl::StrFormat("%8.3f ms  (%s)", timing.ms, ClockText(timing));
}

Meter::Meter(Backend* backend, const Flags& flags) : backend_(backend) {
  if (backend->kind() != DeviceKind::kCuda) return;
  warm_up_seconds_ = static_cast<double>(flags.Number("warm_up", 4));
  monitor_ = OpenGpuMonitor({CudaPciBusId(0)});
}

double Meter::RoundMs(const std::function<void()>& issue, int calls) {
  const auto start = std::chrono::steady_clock::now();
  for (int call = 0; call < calls; ++call) issue();
  Check(backend_->Synchronize());
  const std::chrono::duration<double, std::milli> elapsed =
      std::chrono::steady_clock::now() - start;
  return elapsed.count() / calls;
}

Timing Meter::Measure(const std::function<void()>& issue, int rounds, int calls) {
  constexpr double kRoundMs = 50;
  Check(backend_->Synchronize());
  double ms = RoundMs(issue, 1);
  if (backend_->kind() == DeviceKind::kCuda) {
    // The first two may load and record.
    RoundMs(issue, 1);
    ms = RoundMs(issue, 1);
  }
  const auto a_round = [&ms] { return std::clamp(static_cast<int>(kRoundMs / ms), 1, 10000); };
  const auto start = std::chrono::steady_clock::now();
  while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() <
         warm_up_seconds_) {
    ms = RoundMs(issue, a_round());
  }
  if (calls == 0) calls = a_round();
  Timing timing;
  std::vector<double> times;
  for (int round = 0; round < rounds; ++round) {
    times.push_back(RoundMs(issue, calls));
    if (monitor_ == nullptr) continue;
    // Read while the device works, in calls that are not timed.
    for (int call = 0; call < calls; ++call) issue();
    const GpuSample sample = monitor_->Read()[0];
    Check(backend_->Synchronize());
    timing.sm_mhz += sample.sm_clock_mhz.value_or(0) / rounds;
    timing.watts += sample.power_watts.value_or(0) / rounds;
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  timing.ms = times[times.size() / 2];
  return timing;
}

double Meter::CopyBandwidth() {
  const int64_t bytes =
      backend_->kind() == DeviceKind::kCuda ? int64_t{2} << 30 : int64_t{256} << 20;
  Tensor from = Empty(backend_, DType::kUint8, {bytes});
  Tensor to = Empty(backend_, DType::kUint8, {bytes});
  Check(backend_->FillZero(from.data(), bytes));
  const Timing timing =
      Measure([&] { Check(backend_->CopyOnDevice(to.data(), from.data(), bytes)); });
  return 2.0 * static_cast<double>(bytes) / (timing.ms * 1e-3);
}

}  // namespace uniquanf::bench
