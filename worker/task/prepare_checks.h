// What prepare tries before anything is computed, so that no job fails after its last layer for a
// reason that was there before its first. Internal to worker/task.
#ifndef UNIQUANF_WORKER_TASK_PREPARE_CHECKS_H_
#define UNIQUANF_WORKER_TASK_PREPARE_CHECKS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "common/spec/quantization_spec.h"
#include "worker/model/checkpoint.h"
#include "worker/task/task_runner.h"

namespace uniquanf {

// Every linear layer's settings must fit its shape, and every override must match something.
// Errors: GROUP_SIZE_NOT_DIVIDING, OVERRIDE_MATCHES_NOTHING, NOT_QUANTIZABLE for one that asks for
// bits of what stays in full precision.
absl::Status CheckModules(const QuantizationSpec& spec, const Checkpoint& checkpoint);

// Reads all tensors outside the layers. Error: WEIGHT_NOT_FINITE names the tensor and the element.
absl::Status CheckOuterTensors(const Checkpoint& checkpoint, const TaskEnvironment& env);

// Bytes of all tensors of the artifact, about.
uint64_t ArtifactBytes(const QuantizationSpec& spec, const Checkpoint& checkpoint);

// Whether `needed_bytes` are free at both places, or twice as many where they share a file system;
// remote places have room. Error: kResourceExhausted (STORAGE_FULL).
absl::Status CheckSpace(const std::string& output_uri, const std::string& work_uri,
                        uint64_t needed_bytes);

// Everything that finalize will do at the output before its first large file is written: the
// config, the files that are copied, the claim. Nothing is left there.
absl::Status TryOutput(const QuantizationSpec& spec, const Checkpoint& checkpoint,
                       const std::string& plan_sha256, const TaskEnvironment& env);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_PREPARE_CHECKS_H_
