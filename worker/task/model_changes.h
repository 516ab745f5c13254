// Whether a model's weights are still those that a job's stored results were computed from. Names,
// types and shapes are compared whenever a task opens the model (task_context.h); weights are where
// a result is used again. Internal to worker/task.
//
// Errors: kFailedPrecondition (MODEL_CHANGED) names the layer and its files.
#ifndef UNIQUANF_WORKER_TASK_MODEL_CHANGES_H_
#define UNIQUANF_WORKER_TASK_MODEL_CHANGES_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "worker/task/layer_result.h"
#include "worker/task/task_context.h"

namespace uniquanf {

// Digest of the digests of a block's linear weights as float32.
std::string WeightsDigest(const BlockSpec& spec, const HostBlock& block);

// `original` is the layer's block as it is read now.
absl::Status CheckWeightsUnchanged(const Checkpoint& checkpoint, const LayerResult& result,
                                   const HostBlock& original);

// Remembers the versions of the model's files in the working store, beside the results; the first
// one of a plan stays. Facts of a run: errors are ignored.
void NoteModelFiles(const Checkpoint& checkpoint, const std::string& plan_sha256,
                    const TaskEnvironment& env);
// For all layers at once: reads their weights only where the files are not those that were noted.
absl::Status CheckModelUnchanged(const TaskContext& context, const std::string& plan_sha256,
                                 const std::vector<LayerResult>& results,
                                 const TaskEnvironment& env);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_MODEL_CHANGES_H_
