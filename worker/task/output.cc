#include "worker/task/output.h"

#include "common/artifact/signature.h"
#include "common/base/crash_point.h"
#include "common/base/digest.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

absl::Status OutputExists(absl::string_view uri, absl::string_view what) {
  return MakeError(absl::StatusCode::kAlreadyExists, "OUTPUT_EXISTS",
                   absl::StrCat("the output ", uri, " ", what,
                                "; nothing there was changed: choose another place or remove it"));
}

}  // namespace

absl::Status CheckOutputIsFree(absl::string_view uri, absl::string_view plan_sha256,
                               const DataOptions& options_of_store) {
  UQ_ASSIGN_OR_RETURN(const std::shared_ptr<ObjectStore> output, OpenData(uri, options_of_store));
  ListOptions options;
  options.max_results = 1;
  UQ_ASSIGN_OR_RETURN(const ListResult listed, output->List(options));
  if (listed.objects.empty()) return absl::OkStatus();
  const absl::StatusOr<std::string> marker = output->Read(kOutputMarkerKey, 1024);
  if (marker.ok() && *marker == plan_sha256) return absl::OkStatus();
  if (output->Stat(kManifestKey).ok()) return OutputExists(uri, "already holds an artifact");
  if (marker.ok()) return OutputExists(uri, "is being written by another job");
  return OutputExists(uri, absl::StrCat("already holds ", listed.objects[0].key));
}

absl::Status ClaimOutput(ObjectStore* output, absl::string_view plan_sha256) {
  if (output->Stat(kManifestKey).ok()) return absl::OkStatus();  // PublishManifest compares
  WriteOptions options;
  options.if_absent = true;
  const absl::Status written = output->Write(kOutputMarkerKey, plan_sha256, options);
  if (written.ok() || written.code() != absl::StatusCode::kAlreadyExists) return written;
  UQ_ASSIGN_OR_RETURN(const std::string marker, output->Read(kOutputMarkerKey, 1024));
  if (marker == plan_sha256) return absl::OkStatus();
  return OutputExists(output->uri(), "is being written by another job");
}

absl::Status PublishManifest(ObjectStore* output, absl::string_view manifest_json,
                             const std::optional<ResultSigner>& signer) {
  if (signer.has_value()) {
    const std::string sha256 = Sha256Hex(manifest_json);
    UQ_RETURN_IF_ERROR(
        output->Write(SignatureKey(sha256), SignManifest(signer->key, signer->signed_by, sha256)));
  }
  UQ_CRASH_POINT("finalize.before_manifest");
  WriteOptions options;
  options.if_absent = true;
  const absl::Status written = output->Write(kManifestKey, manifest_json, options);
  if (!written.ok()) {
    // A conditional put that was retried may find its own first success.
    const absl::StatusOr<std::string> existing = output->Read(kManifestKey, kMaxManifestBytes);
    if (!existing.ok()) return written;
    if (*existing != manifest_json) return OutputExists(output->uri(), "already holds an artifact");
  }
  UQ_CRASH_POINT("finalize.after_manifest");
  return output->Delete(kOutputMarkerKey);
}

absl::Status AbandonOutput(absl::string_view uri, absl::string_view plan_sha256,
                           const DataOptions& options_of_store) {
  UQ_ASSIGN_OR_RETURN(const std::shared_ptr<ObjectStore> output, OpenData(uri, options_of_store));
  const absl::StatusOr<std::string> marker = output->Read(kOutputMarkerKey, 1024);
  if (!marker.ok() || *marker != plan_sha256) return absl::OkStatus();
  if (output->Stat(kManifestKey).ok()) return output->Delete(kOutputMarkerKey);
  ListOptions options;
  for (;;) {
    UQ_ASSIGN_OR_RETURN(const ListResult listed, output->List(options));
    for (const ObjectInfo& object : listed.objects) {
      if (object.key != kOutputMarkerKey) UQ_RETURN_IF_ERROR(output->Delete(object.key));
    }
    if (!listed.truncated) break;
    options.start_after = listed.objects.back().key;
  }
  return output->Delete(kOutputMarkerKey);
}

}  // namespace uniquanf
