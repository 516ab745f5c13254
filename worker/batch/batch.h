// The batch program: the engine with no service around it. One function a command; each parses its
// own flags and returns the process's exit code (README.md lists them). Thread safety: none needed.
#ifndef UNIQUANF_WORKER_BATCH_BATCH_H_
#define UNIQUANF_WORKER_BATCH_BATCH_H_

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/flag_set.h"
#include "common/object_store/cache_flags.h"
#include "worker/backend/backend.h"
#include "worker/backend/tensor.h"

namespace uniquanf::batch {

enum ExitCode {
  kOk = 0,
  kFailed = 1,        // the work failed, or verify found problems
  kUsage = 2,         // flags or arguments
  kInvalidInput = 5,  // model, tokens, settings or places that cannot be used
  kInterrupted = 130,
};

int Quantize(const std::vector<std::string>& arguments);
int Quiz(const std::vector<std::string>& arguments);
int Generate(const std::vector<std::string>& arguments);
int Evaluate(const std::vector<std::string>& arguments);
int Inspect(const std::vector<std::string>& arguments);
int Verify(const std::vector<std::string>& arguments);
int Export(const std::vector<std::string>& arguments);
int PrintSpec(const std::vector<std::string>& arguments);
int Tokens(const std::vector<std::string>& arguments);

// Flags that choose the device, and the backend they ask for.
struct DeviceFlags {
  std::string device = "auto";     // auto: cuda when there is one
  std::string precision = "auto";  // auto: f32 on the CPU, bf16 on CUDA
  int threads = 0;
  std::string gpu = "0";
  void AddTo(FlagSet* flags);
  // The first backend asked for.
  absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(DType* act) const;
  // One for every device that --gpu names; a single one on the CPU.
  absl::StatusOr<std::vector<std::unique_ptr<Backend>>> MakeBackends(DType* act) const;
};

// Reports what goes wrong with the cache on standard error. Null when it is off.
std::shared_ptr<ObjectCache> OpenCache(const CacheFlags& flags);

// Parses; prints help or the error with a hint. Returns true when the command should go on, else
// sets *exit_code.
bool ParseOrExplain(FlagSet* flags, const std::vector<std::string>& arguments, int* exit_code);
// Prints one line of JSON; texts in it are safe on a terminal.
void PrintJsonLine(const nlohmann::ordered_json& json);
// Prints "error: ..." (as JSON too, where asked for) and returns the exit code that fits.
int Fail(const absl::Status& status, bool json);

// SIGINT and SIGTERM set a flag that long work polls; a second one ends the process at once.
void InstallInterruptHandler();
bool Interrupted();

}  // namespace uniquanf::batch

#endif  // UNIQUANF_WORKER_BATCH_BATCH_H_
