// The first part of a layer task: everything that it works on comes to where it is worked on.
// Internal to worker/task.
//
// Thread safety: the task's thread. Errors: as RunLayer; kInputsNotAtHand (layer_task.h).
#ifndef UNIQUANF_WORKER_TASK_LAYER_LOAD_H_
#define UNIQUANF_WORKER_TASK_LAYER_LOAD_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "worker/model/language_model.h"
#include "worker/task/activation_cache.h"
#include "worker/task/memory_plan.h"
#include "worker/task/task_context.h"

namespace uniquanf {

// What a layer task is about; the same from its beginning to its end.
struct LayerTask {
  TaskContext context;
  std::string plan_sha256;
  LayerRound at;
  TaskEnvironment env;
  int num_rounds = 1;
  // The method trains on calibration data: the block's inputs are needed, and what it computes is
  // measured. Else its weights are all there is to it.
  bool reconstructs = false;
  std::vector<std::string> modules;  // names, by linear

  const Plan& plan() const { return context.plan; }
  const ModelConfig& config() const { return context.checkpoint->config(); }
  const BlockSpec& block() const { return config().blocks[at.layer]; }
  ActivationCacheImpl* cache() const { return static_cast<ActivationCacheImpl*>(env.cache); }
};

// REQUIRES: the plan has such a layer and round.
LayerTask MakeLayerTask(TaskContext context, std::string plan_sha256, LayerRound at,
                        const TaskEnvironment& env);

struct Loaded {
  std::shared_ptr<const HostBlock> original;
  BlockWeights weights;               // the same, on the device
  std::optional<LayerResult> before;  // this layer's, of the round before
  // Where the block is reconstructed; else empty.
  RopeTables rope;
  MemoryPlan memory;
  LayerInputs inputs;
  SequenceBuffer y_fp;  // the original block's output on inputs.x_fp, [S, L, H] act
};

// Fills what is empty in `loaded`; when it fails, `loaded` holds what there was until then.
// `earlier` null: only when the cache has the layer's inputs, and only in round 0.
absl::Status LoadInputs(const LayerTask& task, const std::vector<std::string>* earlier,
                        Loaded* loaded);
absl::Status LoadWeights(const LayerTask& task, Loaded* loaded);
// What is wrong with a layer that can be quantized all the same: matrices of zeros.
std::vector<std::string> DoubtsAbout(const LayerTask& task, const HostBlock& original);
absl::Status ComputeTargets(const LayerTask& task, Loaded* loaded);

// The inputs are all there, so that they can go back to the cache.
bool HasInputs(const LayerTask& task, const Loaded& loaded);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_LAYER_LOAD_H_
