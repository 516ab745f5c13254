// The flags --cache-dir and --cache-size of programs that read models from remote stores.
//
// Thread safety: none needed. Lifetime: the CacheFlags outlive the FlagSet.
// Errors: kInvalidArgument (INVALID_FLAG).
#ifndef UNIQUANF_COMMON_OBJECT_STORE_CACHE_FLAGS_H_
#define UNIQUANF_COMMON_OBJECT_STORE_CACHE_FLAGS_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/flag_set.h"
#include "common/object_store/object_cache.h"

namespace uniquanf {

// "32GiB", "500MiB", "1.5TiB", "1048576" (bytes).
absl::StatusOr<uint64_t> ParseByteSize(absl::string_view text);

struct CacheFlags {
  // No cache unless a directory is named: nobody's disk is filled unasked, and a container's own
  // one is often too small for a model.
  std::string directory;
  uint64_t size_bytes = uint64_t{32} << 30;
  bool size_given = false;

  void AddTo(FlagSet* flags);
  // After parsing: a size without a directory would silently do nothing.
  absl::Status Check() const;
  // Null when it is off. `num_readers`: threads that read at the same time, at most.
  std::shared_ptr<ObjectCache> Open(int num_readers, PieceFiles::OnProblem on_problem) const;
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_OBJECT_STORE_CACHE_FLAGS_H_
