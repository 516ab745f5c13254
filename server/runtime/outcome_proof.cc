#include "server/runtime/outcome_proof.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/artifact/manifest.h"
#include "common/artifact/signature.h"
#include "common/base/digest.h"
#include "common/base/status.h"

namespace uniquanf::server {
namespace {

// That something is not there, or is no place, is an answer; that a store does not answer is none.
bool IsAnswer(const absl::Status& status) {
  return absl::IsNotFound(status) || absl::IsInvalidArgument(status);
}

}  // namespace

void OutcomeProof::Check(std::vector<OutcomeClaim> claims, Callback done) const {
  thread_.Add([this, claims = std::move(claims), done = std::move(done)] {
    std::vector<std::string> faults;
    for (const OutcomeClaim& claim : claims) {
      const absl::StatusOr<std::string> fault = FindFault(claim);
      if (!fault.ok()) {
        return done(Unavailable("OUTCOME_NOT_PROVED",
                                absl::StrCat("whether a result is there cannot be seen now: ",
                                             fault.status().message())));
      }
      faults.push_back(*fault);
    }
    done(std::move(faults));
  });
}

absl::StatusOr<std::string> OutcomeProof::FindFault(const OutcomeClaim& claim) const {
  if (!IsSha256Hex(claim.outcome.result_sha256)) return "result_sha256 is not 64 hex digits";
  if (claim.kind == TaskKind::kFinalize) return FindFaultOfArtifact(claim);
  if (root_ == nullptr) {
    UQ_ASSIGN_OR_RETURN(root_, OpenObjectStore(object_root_, store_options_));
  }
  const absl::StatusOr<ObjectInfo> info =
      root_->Stat(absl::StrCat("work/", claim.job_uid, "/objects/", claim.outcome.result_sha256));
  if (IsAnswer(info.status())) return "the object of its result is not in the object store";
  UQ_RETURN_IF_ERROR(info.status());
  return info->size_bytes == 0 ? "the object of its result is empty" : "";
}

absl::StatusOr<std::string> OutcomeProof::FindFaultOfArtifact(const OutcomeClaim& claim) const {
  const std::optional<ArtifactRef>& artifact = claim.outcome.artifact;
  if (!artifact.has_value()) return "it names no artifact";
  if (artifact->uri != claim.output_uri) return "its artifact is not where the job's was to go";
  if (artifact->manifest_sha256 != claim.outcome.result_sha256) {
    return "its artifact's digest is not its result's";
  }
  const DataOptions options = {store_options_, claim.data, DataPurpose::kOutput};
  const absl::StatusOr<std::shared_ptr<ObjectStore>> store = OpenData(claim.output_uri, options);
  UQ_RETURN_IF_ERROR(store.status());
  const absl::StatusOr<std::string> text = (*store)->Read(kManifestKey, kMaxManifestBytes);
  if (IsAnswer(text.status())) return "its artifact has no manifest";
  UQ_RETURN_IF_ERROR(text.status());
  if (Sha256Hex(*text) != claim.outcome.result_sha256) {
    return "its artifact's manifest has another digest";
  }
  const absl::StatusOr<Manifest> manifest = Manifest::FromJson(*text);
  if (!manifest.ok()) return "its artifact's manifest is none";
  uint64_t size_bytes = 0;
  for (const ManifestFile& file : manifest->files) size_bytes += file.size_bytes;
  if (static_cast<int64_t>(size_bytes) != artifact->size_bytes) {
    return "its artifact has another size than its manifest says";
  }
  if (!claim.signing_keys.empty()) {
    const absl::Status is_signed =
        CheckSignature(store->get(), claim.outcome.result_sha256, claim.signing_keys).status();
    const std::string reason = ErrorReason(is_signed);
    if (reason == "NOT_SIGNED" || reason == "INVALID_SIGNATURE" ||
        reason == "UNTRUSTED_SIGNATURE") {
      return "its artifact is not signed by the worker";
    }
    UQ_RETURN_IF_ERROR(is_signed);
  }
  return "";
}

}  // namespace uniquanf::server
