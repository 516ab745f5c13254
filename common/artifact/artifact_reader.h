// Reads a unified artifact, and verifies one. The manifest and the index are read at Open; tensors
// on demand, by ranged reads.
//
// Thread safety: ArtifactReader is immutable after Open and thread-safe.
// Errors: kNotFound (ARTIFACT_NOT_FOUND), kInvalidArgument (INVALID_MANIFEST, INVALID_ARTIFACT,
// SAFETENSORS_*, TENSOR_*), store errors.
#ifndef UNIQUANF_COMMON_ARTIFACT_ARTIFACT_READER_H_
#define UNIQUANF_COMMON_ARTIFACT_ARTIFACT_READER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/artifact/layout.h"
#include "common/artifact/manifest.h"
#include "common/object_store/object_store.h"
#include "common/safetensors/safetensors.h"

namespace uniquanf {

class ArtifactReader {
 public:
  // `store` holds manifest.json at its root. Reads the manifest, config.json and every shard's
  // header, and checks that they agree: each file has its size, config.json its digest and our
  // quant_method, and the index names exactly the tensors that the shards hold.
  static absl::StatusOr<std::unique_ptr<ArtifactReader>> Open(std::shared_ptr<ObjectStore> store);

  const Manifest& manifest() const { return manifest_; }
  const std::string& config_json() const { return config_json_; }
  const std::shared_ptr<ObjectStore>& store() const { return store_; }
  // Tensor name → the shard that holds it.
  const std::map<std::string, std::shared_ptr<const SafetensorsFile>>& tensors() const {
    return tensors_;
  }
  // The shard that holds `tensor`; TENSOR_NOT_FOUND.
  absl::StatusOr<std::shared_ptr<const SafetensorsFile>> FindShard(absl::string_view tensor) const;
  // A quantized module's packed weights; FAILED_PRECONDITION (MODULE_NOT_QUANTIZED) for one in full
  // precision, TENSOR_NOT_FOUND for one that the manifest does not list.
  absl::StatusOr<PackedLinear> ReadPacked(absl::string_view module_name) const;

 private:
  absl::Status ReadConfig();
  absl::Status ReadShards();

  std::shared_ptr<ObjectStore> store_;
  Manifest manifest_;
  std::string config_json_;
  std::map<std::string, std::shared_ptr<const SafetensorsFile>> tensors_;
};

// Whether every file has the size and the digest that the manifest says: for programs that use an
// artifact without verifying it. Reads all of it. Errors: kDataLoss (DIGEST_MISMATCH) names the
// first that has not; ARTIFACT_NOT_FOUND, INVALID_MANIFEST, store errors.
absl::Status CheckArtifactFiles(ObjectStore* store);

struct VerifyReport {
  std::vector<std::string> problems;  // each names the file, module or tensor; empty: all is well
  int64_t num_files = 0;
  uint64_t num_bytes = 0;
  int64_t num_modules = 0;
};

// Checks everything that the format promises: each file's size and SHA-256, every tensor's dtype
// and shape, that none is missing or extra, that scale factors, shifts and tensors in full
// precision are finite, pad bits and q_bias zero, and that no file lies in the store that the
// manifest does not name. `progress` (may be empty) is told the bytes done and the total. Returns
// an error only where the artifact can not be read at all (no manifest, or a storage failure);
// defects go to the report.
absl::StatusOr<VerifyReport> VerifyArtifact(
    std::shared_ptr<ObjectStore> store,
    const std::function<void(uint64_t done_bytes, uint64_t total_bytes)>& progress);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_ARTIFACT_ARTIFACT_READER_H_
