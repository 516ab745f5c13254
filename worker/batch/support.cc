#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "common/base/status.h"
#include "worker/batch/batch.h"

namespace uniquanf::batch {
namespace {

volatile std::sig_atomic_t g_interrupted =
    0;  // written by the signal handler, the only way to reach it

extern "C" void OnInterrupt(int signal) {
  if (g_interrupted != 0) _exit(kInterrupted);
  g_interrupted = 1;
}

}  // namespace

void DeviceFlags::AddTo(FlagSet* flags) {
  flags->Section("Device");
  flags->Choice("device", {"auto", "cpu", "cuda"}, &device, "where to compute");
  flags->Choice("precision", {"auto", "f32", "bf16"}, &precision,
                "arithmetic of the blocks; auto is f32 on the CPU and bf16 on CUDA");
  flags->Int("threads", &threads, 0, 1024,
             "CPU threads; 0: all cores. Results do not depend on it");
  flags->Int("gpu", &gpu, 0, 1024, "index of the CUDA device");
}

absl::StatusOr<std::unique_ptr<Backend>> DeviceFlags::MakeBackend(DType* act) const {
  const bool cuda = device == "cuda" || (device == "auto" && NumCudaDevices() > 0);
  if (!cuda && precision == "bf16") {
    return InvalidInput("INVALID_FLAG",
                        "--precision bf16 needs --device cuda; the CPU computes in f32");
  }
  *act = cuda && precision != "f32" ? DType::kBfloat16 : DType::kFloat32;
  if (cuda) return NewCudaBackend(gpu);
  CpuBackendOptions options;
  options.num_threads = threads;
  return NewCpuBackend(options);
}

bool ParseOrExplain(FlagSet* flags, const std::vector<std::string>& arguments, int* exit_code) {
  const absl::Status parsed = flags->Parse(arguments);
  if (parsed.ok() && !flags->help_requested()) return true;
  if (parsed.ok()) {
    std::fputs(flags->Help().c_str(), stdout);
    *exit_code = kOk;
    return false;
  }
  std::fprintf(stderr, "error: %s\nTry --help.\n", std::string(parsed.message()).c_str());
  *exit_code = kUsage;
  return false;
}

int Fail(const absl::Status& status, bool json) {
  if (json) {
    nlohmann::ordered_json error;
    error["error"]["reason"] = ErrorReason(status);
    error["error"]["message"] = std::string(status.message());
    std::printf("%s\n",
                error.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  }
  std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  switch (status.code()) {
    case absl::StatusCode::kCancelled:
      return kInterrupted;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnimplemented:
      return kInvalidInput;
    default:
      return kFailed;
  }
}

void InstallInterruptHandler() {
  struct sigaction action {};
  action.sa_handler = OnInterrupt;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

bool Interrupted() { return g_interrupted != 0; }

}  // namespace uniquanf::batch
