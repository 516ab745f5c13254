// Objects as files below a local directory: key "a/b" is the file ROOT/a/b.
//
// Writes: bytes go to a temporary file ".tmp-<random>" in the target's directory, which Commit
// makes durable (fsync) and renames into place, then it fsyncs the directory; so readers, and
// whoever comes after a crash of process or machine, see the old object, none, or the new one
// whole. A writer holds a lock (flock) on its temporary file while it lives. Leftovers of killed
// processes never show in List and can not be addressed as keys; a store sweeps a directory of
// those that nobody holds and that are an hour old when it first writes there, and
// SweepTemporaries does so for the whole tree.
// Symbolic links: a key may lead through links to a regular file inside ROOT, or, as in the
// Hugging Face cache ("snapshots/<revision>/" linking to "../../blobs/"), to the cache's blobs;
// links to anywhere else are PERMISSION_DENIED, and writes never go through a link below ROOT.
// A confined store (OpenConfinedLocalStore) follows links to what lies in its confinement instead.
// Limits of a file system: segments of at most 255 bytes (INVALID_OBJECT_KEY), and an object can
// not lie below another one ("a" and "a/b": kFailedPrecondition, OBJECT_KEY_CONFLICT).
// Deleting the last object of a directory removes the directory.
//
// Thread safety and errors: as ObjectStore; several processes may share ROOT.
#ifndef UNIQUANF_COMMON_OBJECT_STORE_LOCAL_STORE_H_
#define UNIQUANF_COMMON_OBJECT_STORE_LOCAL_STORE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/object_store/object_store.h"

namespace uniquanf {

// `root` is a path, relative to the working directory at this call; it need not exist yet. Never
// touches the disk. Errors: kInvalidArgument (INVALID_URI) for an empty path or one with a NUL.
// `directory_mode`: of StoreOptions.
absl::StatusOr<std::shared_ptr<ObjectStore>> OpenLocalStore(
    absl::string_view root, std::optional<uint32_t> directory_mode = std::nullopt);

// Where a store lies that nothing leads out of.
struct LocalConfinement {
  std::string directory;              // the path to it is trusted
  bool follows_links = true;          // for reading, to what lies in `directory` as well
  std::vector<std::string> withheld;  // directories in it from which nothing is read
};
// The same, of a store at or below the confinement's directory, which nothing leads out of: no
// link, no "/proc/PID/root", no mount point (unless it is "/", outside of which nothing is),
// whenever they are made. What would is PERMISSION_DENIED (DATA_NOT_ALLOWED).
absl::StatusOr<std::shared_ptr<ObjectStore>> OpenConfinedLocalStore(
    absl::string_view root, LocalConfinement confinement,
    std::optional<uint32_t> directory_mode = std::nullopt);

// Removes the temporary files below `root` that no living writer holds and that were not modified
// for `min_age`; returns how many. A missing root is fine.
absl::StatusOr<int> SweepTemporaries(absl::string_view root, absl::Duration min_age);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_OBJECT_STORE_LOCAL_STORE_H_
