// Who made an artifact or a task's result: signatures with Ed25519 over their digests.
//
// An artifact's lies beside its manifest, in a file of its own named by the manifest's digest, so
// that the artifact's bytes are the same whoever makes it, and so that one who lost the race for
// the place leaves nothing that could be taken for the winner's.
//
// Thread safety: free functions. Errors: FAILED_PRECONDITION: NOT_SIGNED; kDataLoss
// (INVALID_SIGNATURE): a file that is none, or that is not of this manifest; kPermissionDenied
// (UNTRUSTED_SIGNATURE): by a key that is not trusted.
#ifndef UNIQUANF_COMMON_ARTIFACT_SIGNATURE_H_
#define UNIQUANF_COMMON_ARTIFACT_SIGNATURE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/signing_key.h"
#include "common/object_store/object_store.h"

namespace uniquanf {

// "manifest.json.0123456789abcdef.sig", by the first digits of the digest.
std::string SignatureKey(absl::string_view manifest_sha256);
bool IsSignatureKey(absl::string_view key);
// The text of that file: `signed_by` ("worker/w") is covered by the signature.
std::string SignManifest(const SigningKey& key, const std::string& signed_by,
                         const std::string& manifest_sha256);

struct ManifestSignature {
  std::string signed_by;
  VerifyingKey key;
};
// Reads and checks the signature of the manifest with this digest. `trusted`: the keys that count.
absl::StatusOr<ManifestSignature> CheckSignature(ObjectStore* artifact,
                                                 const std::string& manifest_sha256,
                                                 const std::vector<VerifyingKey>& trusted);

// What a worker signs of a task's result (task.proto).
std::string ResultMessage(absl::string_view worker, absl::string_view lease_id,
                          absl::string_view result_sha256);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_ARTIFACT_SIGNATURE_H_
