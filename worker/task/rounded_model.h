// The original with its linear layers rounded to nearest: what a job's result is compared with.
// Internal to worker/task.
#ifndef UNIQUANF_WORKER_TASK_ROUNDED_MODEL_H_
#define UNIQUANF_WORKER_TASK_ROUNDED_MODEL_H_

#include <memory>
#include <string>
#include <vector>

#include "common/artifact/manifest.h"
#include "worker/model/checkpoint.h"

namespace uniquanf {

// Layers are quantized, with the bits and groups that `modules` say, as they are read; what is in
// full precision there stays so. All are borrowed. Thread safety: one thread, as Backend.
std::unique_ptr<Checkpoint> NewRoundedModel(Backend* backend, const Checkpoint* original,
                                            const std::vector<ManifestModule>* modules);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_ROUNDED_MODEL_H_
