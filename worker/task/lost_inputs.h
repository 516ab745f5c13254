// Working objects that a task needs and does not find: which of its inputs have to be made again.
//
// Readers of working objects pass their errors through NoteWorkObject, which marks them with the
// object's digest; FindLostInputs then looks at all of a task's inputs, so that many that are gone
// are told at once.
//
// Thread safety: free functions. Errors: store errors pass through.
#ifndef UNIQUANF_WORKER_TASK_LOST_INPUTS_H_
#define UNIQUANF_WORKER_TASK_LOST_INPUTS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/object_store/object_store.h"

namespace uniquanf {

// `status`, of reading the working object `sha256`, marked with that digest where it says that the
// object is missing, too short or damaged; otherwise as it is.
absl::Status NoteWorkObject(const absl::Status& status, const std::string& sha256);
// The digest that NoteWorkObject has put into `status`, or "".
std::string WorkObjectOf(const absl::Status& status);

// Those of a task's inputs (the plan's digest and its layers' results') that are missing or
// damaged, or that name an object that is. Damaged objects are deleted, so that they are made again
// and not taken for good because they have the right name. `suspect`: the object at which the task
// failed; it is read in full, the others are looked for. Empty: all are there.
absl::StatusOr<std::vector<std::string>> FindLostInputs(ObjectStore* work,
                                                        const std::string& plan_sha256,
                                                        const std::vector<std::string>& layers,
                                                        const std::string& suspect);

// Marks `status` as caused by the loss of these inputs, and reads the mark.
absl::Status WithLostInputs(const absl::Status& status, const std::vector<std::string>& inputs);
std::vector<std::string> LostInputsOf(const absl::Status& status);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_LOST_INPUTS_H_
