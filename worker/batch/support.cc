#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <new>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/printable.h"
#include "common/base/status.h"
#include "worker/backend/blas_kernel.h"
#include "worker/batch/batch.h"
#include "worker/model/checkpoint.h"

namespace uniquanf::batch {
namespace {

volatile std::sig_atomic_t g_interrupted =
    0;  // written by the signal handler, the only way to reach it

extern "C" void OnInterrupt(int signal) {
  if (g_interrupted != 0) _exit(kInterrupted);
  g_interrupted = 1;
}

// Small allocations that fail: nothing can be done any more but to say so.
void ExitOutOfMemory() {
  constexpr char kMessage[] =
      "error: out of memory: raise this process's limit (ulimit -v, or its container's)\n";
  if (write(STDERR_FILENO, kMessage, sizeof(kMessage) - 1) < 0) _exit(kFailed);
  _exit(kFailed);
}

}  // namespace

void DeviceFlags::AddTo(FlagSet* flags) {
  flags->Section("Device");
  flags->Choice("device", {"auto", "cpu", "cuda"}, &device, "where to compute");
  flags->Choice("precision", {"auto", "f32", "bf16"}, &precision,
                "arithmetic of the blocks; auto is f32 on the CPU and bf16 on CUDA");
  flags->Int(
      "threads", &threads, 0, 1024,
      "CPU threads; 0: as many processors as the process, or its container, may use. Results do "
      "not depend on it");
  flags->String(
      "gpu", "LIST", &gpu,
      "CUDA devices: \"all\" or indices like 0,2. Several are used at once for layers that do "
      "not depend on each other (--input-prob 0)");
}

absl::StatusOr<std::vector<std::unique_ptr<Backend>>> DeviceFlags::MakeBackends(DType* act) const {
  const int num_devices = NumCudaDevices();
  const bool cuda = device == "cuda" || (device == "auto" && num_devices > 0);
  if (!cuda && precision == "bf16") {
    return InvalidInput("INVALID_FLAG",
                        "--precision bf16 needs --device cuda; the CPU computes in f32");
  }
  *act = cuda && precision != "f32" ? DType::kBfloat16 : DType::kFloat32;
  std::vector<std::unique_ptr<Backend>> backends;
  if (!cuda) {
    CpuBackendOptions options;
    options.num_threads = threads;
    UQ_RETURN_IF_ERROR(CheckMemoryForBlas(threads));
    backends.push_back(NewCpuBackend(options));
    return backends;
  }
  std::vector<std::string> names;
  if (gpu == "all") {
    for (int i = 0; i < std::max(num_devices, 1); ++i) names.push_back(absl::StrCat(i));
  } else {
    names = absl::StrSplit(gpu, ',');
  }
  for (const std::string& name : names) {
    int index = 0;
    if (!absl::SimpleAtoi(name, &index) || index < 0) {
      return InvalidInput("INVALID_FLAG", absl::StrCat("--gpu: \"", name,
                                                       "\" is no device index; give \"all\" or "
                                                       "indices like 0,2"));
    }
    UQ_ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, NewCudaBackend(index));
    backends.push_back(std::move(backend));
  }
  return backends;
}

absl::StatusOr<std::unique_ptr<Backend>> DeviceFlags::MakeBackend(DType* act) const {
  UQ_ASSIGN_OR_RETURN(std::vector<std::unique_ptr<Backend>> backends, MakeBackends(act));
  return std::move(backends.front());
}

std::shared_ptr<ObjectCache> OpenCache(const CacheFlags& flags) {
  return flags.Open(kTensorsReadAtOnce, [](const absl::Status& problem) {
    std::fprintf(stderr, "warning: %s\n", PrintableText(problem.message()).c_str());
  });
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

void PrintJsonLine(const nlohmann::ordered_json& json) {
  std::printf(
      "%s\n",
      PrintableJson(json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)).c_str());
}

int Fail(const absl::Status& status, bool json) {
  if (json) {
    nlohmann::ordered_json error;
    error["error"]["reason"] = ErrorReason(status);
    error["error"]["message"] = std::string(status.message());
    PrintJsonLine(error);
  }
  const std::string reason = ErrorReason(status);
  std::fprintf(stderr, "error: %s%s\n", PrintableText(status.message()).c_str(),
               reason.empty() ? "" : absl::StrCat(" [", PrintableText(reason), "]").c_str());
  // The settings are right, what they bring is not good enough.
  if (reason == "QUALITY_TARGET") return kFailed;
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
  std::set_new_handler(ExitOutOfMemory);
  struct sigaction action {};
  action.sa_handler = OnInterrupt;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

bool Interrupted() { return g_interrupted != 0; }

}  // namespace uniquanf::batch
