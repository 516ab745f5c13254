// Runs the layer tasks of a job over a real or synthetic checkpoint, as the batch program does, and
// prints what each layer costs: the seconds for which it keeps the device, the optimization steps'
// share, everything around them, and peak memory. While its result is stored the next layer runs.
#include <sys/resource.h>

#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/flag_set.h"
#include "common/base/random.h"
#include "common/base/status.h"
#include "common/safetensors/safetensors.h"
#include "common/spec/spec_flags.h"
#include "worker/backend/cpu_backend.h"
#include "worker/backend/gpu_monitor.h"
#include "worker/model/checkpoint.h"
#include "worker/task/task_runner.h"

namespace uniquanf {
namespace {

struct BenchFlags {
  QuantizationSpec spec;
  std::string device = "auto", precision = "auto", work = "job-bench-work", activations = "auto";
  int threads = 0, layers = 0;
};

// Tokens that need no tokenizer, for a model whose weights mean nothing.
absl::Status WriteRandomTokens(const std::string& dir, int64_t rows, int64_t width, int64_t vocab) {
  UQ_ASSIGN_OR_RETURN(const std::shared_ptr<ObjectStore> store, OpenObjectStore(dir));
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<ObjectWriter> out,
                      store->NewWriter("random_tokens.safetensors", {}));
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsWriter> writer,
                      SafetensorsWriter::Create(
                          out.get(), {{"input_ids", SafetensorsDType::kI32, {rows, width}}}, {}));
  std::vector<int32_t> ids(rows * width);
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<int32_t>(PhiloxAt(1, 2, i).v[0] % static_cast<uint64_t>(vocab));
  }
  UQ_RETURN_IF_ERROR(writer->Append("input_ids", ids.data(), ids.size() * sizeof(int32_t)));
  UQ_RETURN_IF_ERROR(writer->Finish());
  return out->Commit();
}

// Seconds between the first report of each phase and the first of the next one.
class PhaseTimer {
 public:
  explicit PhaseTimer(GpuMonitor* monitor) : monitor_(monitor) {}
  void Report(const TaskStepProgress& progress) {
    const absl::Duration now = SystemClock().Monotonic();
    if (absl::string_view(progress.phase) == "reconstructing") {
      if (first_step_ < 0) {
        first_step_ = progress.step;
        first_step_at_ = now;
      }
      last_step_ = progress.step;
      last_step_at_ = now;
      if (monitor_ != nullptr && now - sampled_at_ > absl::Seconds(1)) Sample(now);
    }
    if (progress.phase == phase_) return;
    Close(now);
    phase_ = progress.phase;
    since_ = now;
  }
  // Of the device while it optimized, about once a second; "" where the driver does not tell.
  std::string Clock() const {
    if (num_samples_ == 0) return "";
    return absl::StrFormat("; %.0f MHz, %.0f W", mhz_ / num_samples_, watts_ / num_samples_);
  }
  void Close(absl::Duration now) {
    if (!phase_.empty()) seconds_[phase_] += absl::ToDoubleSeconds(now - since_);
    phase_.clear();
  }
  const std::map<std::string, double>& seconds() const { return seconds_; }
  // Between the first and the last report of steps; 0 when there were less than two.
  double SecondsAStep() const {
    if (last_step_ <= first_step_) return 0;
    return absl::ToDoubleSeconds(last_step_at_ - first_step_at_) /
           static_cast<double>(last_step_ - first_step_);
  }

 private:
  void Sample(absl::Duration now) {
    sampled_at_ = now;
    const GpuSample sample = monitor_->Read()[0];
    if (!sample.sm_clock_mhz.has_value() || !sample.power_watts.has_value()) return;
    mhz_ += *sample.sm_clock_mhz;
    watts_ += *sample.power_watts;
    ++num_samples_;
  }

  GpuMonitor* const monitor_;  // may be null
  absl::Duration sampled_at_;
  double mhz_ = 0, watts_ = 0;
  int num_samples_ = 0;
  int64_t first_step_ = -1, last_step_ = -1;
  absl::Duration first_step_at_, last_step_at_;
  std::string phase_;
  absl::Duration since_;
  std::map<std::string, double> seconds_;
};

double PeakResidentGiB() {
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / (1 << 20);
}

absl::Status Run(BenchFlags flags) {
  std::unique_ptr<Backend> backend;
  const bool cuda = flags.device == "cuda" || (flags.device == "auto" && NumCudaDevices() > 0);
  if (cuda) {
    UQ_ASSIGN_OR_RETURN(backend, NewCudaBackend(0));
  } else {
    backend = NewCpuBackend({.num_threads = flags.threads});
  }
  TaskEnvironment env;
  env.backend = backend.get();
  env.act = cuda && flags.precision != "f32" ? DType::kBfloat16 : DType::kFloat32;
  env.clock = &SystemClock();
  env.activations =
      flags.activations == "host" ? ActivationPlacement::kHost : ActivationPlacement::kAuto;
  const std::unique_ptr<ActivationCache> cache = NewActivationCache();
  env.cache = cache.get();
  env.work_uri = flags.work;
  UQ_ASSIGN_OR_RETURN(env.work, OpenObjectStore(flags.work));
  UQ_ASSIGN_OR_RETURN(const std::shared_ptr<ObjectStore> model,
                      OpenObjectStore(flags.spec.model_uri));
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint, Checkpoint::Open(model, false));
  if (flags.spec.calibration_uri.empty()) {
    UQ_RETURN_IF_ERROR(WriteRandomTokens(flags.work, flags.spec.num_samples,
                                         flags.spec.sequence_length,
                                         checkpoint->config().vocab_size));
    flags.spec.calibration_uri = AbsoluteUri(flags.work + "/random_tokens.safetensors");
  }
  flags.spec.output_uri = AbsoluteUri(flags.work + "/never-written");
  UQ_ASSIGN_OR_RETURN(const PrepareOutcome prepared, RunPrepare(flags.spec, env));
  const BlockSpec& block = checkpoint->config().blocks[0];
  uint64_t weights = 0;
  for (int l = 0; l < block.num_linears(); ++l) weights += block.linear(l).num_elements();
  const double cache_gib = 3.0 * flags.spec.num_samples * flags.spec.sequence_length *
                           block.hidden_size * DTypeBytes(env.act) / (1 << 30);
  std::printf("device        %s\n", backend->description().c_str());
  std::printf("block         %.1f M weights, %d bits; calibration activations %.2f GiB\n",
              weights / 1e6, flags.spec.bits, cache_gib);

  const int num_layers =
      flags.layers > 0 ? std::min(flags.layers, prepared.num_layers) : prepared.num_layers;
  const int64_t num_steps = flags.spec.epochs * flags.spec.num_samples / flags.spec.batch_size;
  std::vector<std::string> results;
  LayerRunner runner;
  const std::unique_ptr<GpuMonitor> monitor = cuda ? OpenGpuMonitor({CudaPciBusId(0)}) : nullptr;
  const absl::Duration job_start = SystemClock().Monotonic();
  for (int layer = 0; layer < num_layers; ++layer) {
    PhaseTimer timer(monitor.get());
    env.progress = [&timer](const TaskStepProgress& progress) { timer.Report(progress); };
    backend->ResetPeak();
    const int64_t blas_before = cuda ? 0 : CpuBackend::From(backend.get())->blas_nanoseconds();
    const absl::Duration start = SystemClock().Monotonic();
    UQ_ASSIGN_OR_RETURN(const LayerOutcome outcome,
                        runner.Run(flags.spec, prepared.plan_sha256, {layer, 0}, results, env));
    const absl::Duration end = SystemClock().Monotonic();
    timer.Close(end);
    results.push_back(outcome.result_sha256);
    const double seconds = outcome.device_seconds;
    const double stepping = timer.SecondsAStep() * static_cast<double>(num_steps);
    std::printf(
        "layer %-3d     %.2f s: %lld steps of %.3f ms and %.2f s around them (%.1f%%); stored %.2f "
        "s after the one before%s\n",
        layer, seconds, static_cast<long long>(num_steps), 1e3 * stepping / num_steps,
        seconds - stepping, 100 * (seconds / stepping - 1), absl::ToDoubleSeconds(end - start),
        timer.Clock().c_str());
    for (const auto& [name, spent] : timer.seconds()) {
      std::printf("                %-16s %.2f s\n", name.c_str(), spent);
    }
    if (!cuda) {
      const double blas = (CpuBackend::From(backend.get())->blas_nanoseconds() - blas_before) / 1e9;
      std::printf("  in BLAS       %.2f s of threads' time, %.0f%% of the layer's on %d threads\n",
                  blas,
                  100 * blas / (seconds * CpuBackend::From(backend.get())->pool().num_threads()),
                  CpuBackend::From(backend.get())->pool().num_threads());
    }
    std::printf("  error         %.4e -> %.4e\n", outcome.initial_loss, outcome.final_loss);
    std::printf("  peak memory   %.2f GiB of the device; %.2f GiB resident in the process\n",
                static_cast<double>(backend->memory().peak_allocated_bytes) / (1 << 30),
                PeakResidentGiB());
    std::fflush(stdout);
  }
  const double seconds = absl::ToDoubleSeconds(SystemClock().Monotonic() - job_start);
  std::printf("all layers    %.2f s, %.2f s a layer\n", seconds, seconds / num_layers);
  return absl::OkStatus();
}

}  // namespace
}  // namespace uniquanf

int main(int argc, char** argv) {
  uniquanf::BenchFlags flags;
  flags.spec.calibration_uri = "";
  uniquanf::FlagSet flag_set("job_bench --model DIR [flags]",
                             "Times the layer tasks of a job. Without --calibration the tokens are "
                             "random, which is right for a synthetic checkpoint.");
  uniquanf::AddSpecFlags(&flag_set, &flags.spec);
  flag_set.Section("Bench");
  flag_set.Choice("device", {"auto", "cpu", "cuda"}, &flags.device, "where to compute");
  flag_set.Choice("precision", {"auto", "f32", "bf16"}, &flags.precision, "arithmetic on CUDA");
  flag_set.Choice("activations", {"auto", "host"}, &flags.activations, "where activations lie");
  flag_set.Int("threads", &flags.threads, 0, 1024, "CPU threads; 0: all");
  flag_set.Int("layers", &flags.layers, 0, 10000, "only the first layers; 0: all");
  flag_set.String("work", "DIR", &flags.work, "working directory; left behind");
  const absl::Status parsed = flag_set.Parse(std::vector<std::string>(argv + 1, argv + argc));
  if (!parsed.ok() || flag_set.help_requested()) {
    std::printf("%s\n",
                parsed.ok() ? flag_set.Help().c_str() : std::string(parsed.message()).c_str());
    return parsed.ok() ? 0 : 2;
  }
  uniquanf::MakeUrisAbsolute(&flags.spec);
  const absl::Status status = uniquanf::Run(std::move(flags));
  if (!status.ok()) std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}
