// What lies in a model's folder beside what is read: for messages about folders that hold no model,
// and for the small files that are copied.
#ifndef UNIQUANF_WORKER_MODEL_MODEL_FOLDER_H_
#define UNIQUANF_WORKER_MODEL_MODEL_FOLDER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/object_store/object_store.h"

namespace uniquanf {

struct FolderEntries {
  std::vector<ObjectInfo> files;     // directly in the folder, in byte order of their keys
  std::vector<std::string> folders;  // names of those below it that hold anything
  bool complete = true;              // there are no more than were listed
};

// What lies directly in the folder `prefix` ("" or "a/b/") of the store; of a large folder the
// first few thousand entries.
absl::StatusOr<FolderEntries> ListFolder(ObjectStore* store, const std::string& prefix);

// Why the folder, which lacks `missing`, is no checkpoint, and what to give instead: "; …", or "".
std::string ExplainFolder(ObjectStore* store, absl::string_view missing);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_MODEL_FOLDER_H_
