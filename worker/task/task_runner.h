// Runs one task of a job: prepare, one decoder layer, one window of layers that is distilled, or
// finalize. The batch program calls these in
// a loop, the worker's agent once for every lease; both give the same bytes.
//
// Tasks are stateless: everything comes from object storage (the model by ranged reads, the plan
// with its calibration tokens, the stored results of earlier layers), and the result is one
// content-addressed object in the job's working store, "objects/<sha256>". Running a task twice
// writes the same object. Thread safety: one task per Backend at a time; different environments may
// run in parallel. Errors: InvalidInput codes (kInvalidArgument, kAlreadyExists, kNotFound,
// kPermissionDenied, kFailedPrecondition) mean that a retry cannot help; kResourceExhausted with
// OUT_OF_MEMORY that another worker might; kCancelled; anything else is transient or a bug.
#ifndef UNIQUANF_WORKER_TASK_TASK_RUNNER_H_
#define UNIQUANF_WORKER_TASK_TASK_RUNNER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/signing_key.h"
#include "common/base/stop_token.h"
#include "common/job/job.h"
#include "common/job/loss_history.h"
#include "common/job/report.h"
#include "common/object_store/object_cache.h"
#include "common/object_store/object_store.h"
#include "common/spec/quantization_spec.h"
#include "worker/backend/backend.h"
#include "worker/backend/tensor.h"

namespace uniquanf {

class DataAccess;  // common/object_store/data_access.h

struct TaskStepProgress {
  const char* phase =
      "";  // "loading", "activations", "initializing", "reconstructing", "storing", ...
  int64_t step = 0;
  int64_t num_steps = 0;
  double loss = 0;
};

// A layer is optimized in one round, or in several where the schedule is pipelined.
struct LayerRound {
  int layer = 0;
  int round = 0;
  friend bool operator==(const LayerRound&, const LayerRound&) = default;
};

// Inputs of the next layer kept from the last one; a cache, recomputed when lost. One per Backend.
class ActivationCache {
 public:
  virtual ~ActivationCache() = default;
  // The layer whose inputs are at hand for the plan with this digest, if there is one.
  virtual std::optional<LayerRound> CachedLayer(const std::string& plan_sha256) const = 0;
  virtual void Clear() = 0;
};
std::unique_ptr<ActivationCache> NewActivationCache();

// Where calibration activations lie: on the device when they fit (kAuto), or as said. It changes
// speed, not bits.
enum class ActivationPlacement { kAuto, kDevice, kHost };

// Who answers for what a task makes.
struct ResultSigner {
  SigningKey key;
  std::string signed_by;  // "worker/w"
};

struct TaskEnvironment {
  Backend* backend = nullptr;   // borrowed, as all below
  DType act = DType::kFloat32;  // f32, or bf16 on CUDA
  const Clock* clock = nullptr;
  ActivationCache* cache = nullptr;   // may be null
  std::shared_ptr<ObjectStore> work;  // the job's working objects
  std::string work_uri;               // tells LayerRunner one job's from another's
  std::string job;                    // "jobs/x", for the report; "" where no service runs it
  std::shared_ptr<ObjectCache> model_cache;  // of models in remote stores; null: none
  ActivationPlacement activations = ActivationPlacement::kAuto;
  std::function<void(const TaskStepProgress&)>
      progress;  // may be empty; called from the task's thread
  // Asked many times a second by the task, and by the stores that it opens (StoreOptions), which
  // may outlive it.
  StopToken stop;
  std::shared_ptr<StoreObserver> store_observer;  // of those stores; null: none
  std::optional<uint32_t> artifact_mode;  // of a local artifact's directories (StoreOptions)
  // What the job may name (DataOptions); null: whatever the process may open.
  std::shared_ptr<const DataAccess> data;
  std::optional<ResultSigner> signer;  // of the artifact; none: it is not signed
};

struct PrepareOutcome {
  std::string plan_sha256;
  int num_layers = 0;
  bool layers_independent = false;  // input_prob is 0, or the method needs no quantized inputs
  int num_rounds = 1;               // layer tasks of each layer
  int distill_window = 0;           // layers of a window's task; 0: there are none
  uint64_t layer_memory_bytes = 0;  // device memory that a layer's or a window's task needs
  JobWork work;
  std::vector<std::string> notes;  // for people: what is left unquantized and why
};
absl::StatusOr<PrepareOutcome> RunPrepare(const QuantizationSpec& spec, const TaskEnvironment& env);

struct LayerOutcome {
  std::string result_sha256;
  double initial_loss = 0, final_loss = 0;  // 0 where there was no reconstruction to measure
  bool kept_start = false;                  // training did not lower the error
  int64_t num_folded = 0;                   // channels that were scaled because they stood out
  double device_seconds = 0;                // for which it kept the device, without its storing
  LossHistory history;                      // over the steps of all its rounds so far
  std::vector<ModuleMetrics> modules;
};
// `earlier` are the results of layers 0..layer−1 of the same round, in order (may be left out when
// layers are independent); then, after round 0, this layer's result of the round before.
absl::StatusOr<LayerOutcome> RunLayer(const QuantizationSpec& spec, const std::string& plan_sha256,
                                      int layer, const std::vector<std::string>& earlier,
                                      const TaskEnvironment& env, int round = 0);

// Whether a layer's stored result, found again by a run that goes on where another ended, belongs
// to the model's weights as they are now. Reads them. Error: kFailedPrecondition (MODEL_CHANGED).
absl::Status CheckFinishedLayer(const QuantizationSpec& spec, const std::string& plan_sha256,
                                LayerRound layer, const std::string& result_sha256,
                                const TaskEnvironment& env);

// RunLayer for the layers of jobs one after the other on one device, which does not wait for a
// result to be stored: it goes on with the next layer of the same job and round when that layer's
// inputs are at hand. If the next call asks for that layer it takes over what runs; if it asks for
// another one, or comes more than kPatience after the result before was stored, what runs is given
// up and its inputs go back to the cache. The bytes are those of RunLayer.
//
// Thread safety: none. While a layer may be running ahead nothing else may use the environment's
// backend and cache; Stop ends that. Both outlive the runner.
class LayerRunner {
 public:
  static constexpr absl::Duration kPatience = absl::Seconds(2);

  LayerRunner();
  ~LayerRunner();
  absl::StatusOr<LayerOutcome> Run(const QuantizationSpec& spec, const std::string& plan_sha256,
                                   LayerRound layer, const std::vector<std::string>& earlier,
                                   const TaskEnvironment& env);
  // Gives up the layer that runs ahead, if one does, and waits until it has let go of the device.
  void Stop();
  // The layer that runs ahead for the plan with this digest.
  std::optional<LayerRound> Ahead(const std::string& plan_sha256) const;

 private:
  class AheadLayer;
  std::unique_ptr<AheadLayer> ahead_;  // null: none
};

struct WindowTaskOutcome {
  std::string result_sha256;
  double initial_divergence = 0, final_divergence = 0;  // as in WindowReport
  LossHistory history;
};
// Distils the window whose first layer is `first_layer`. `inputs` are the results of the windows
// before it, then of the layers from its first on in the last round, in order.
absl::StatusOr<WindowTaskOutcome> RunWindow(const QuantizationSpec& spec,
                                            const std::string& plan_sha256, int first_layer,
                                            const std::vector<std::string>& inputs,
                                            const TaskEnvironment& env);

struct FinalizeOutcome {
  ArtifactInfo artifact;
  JobReport report;
};
// `layers` are the results of all windows, or, where none are distilled, of all layers in the last
// round, in order.
absl::StatusOr<FinalizeOutcome> RunFinalize(const QuantizationSpec& spec,
                                            const std::string& plan_sha256,
                                            const std::vector<std::string>& layers,
                                            const TaskEnvironment& env);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_TASK_RUNNER_H_
