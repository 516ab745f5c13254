// The artifact's place: claimed with a marker (kOutputMarkerKey) before the first file is written,
// published by a conditional put of the manifest, last. Readers that find no manifest see no
// artifact.
//
// Errors: kAlreadyExists (OUTPUT_EXISTS) names what is there and what to do.
#ifndef UNIQUANF_WORKER_TASK_OUTPUT_H_
#define UNIQUANF_WORKER_TASK_OUTPUT_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/artifact/manifest.h"
#include "common/object_store/open_data.h"
#include "worker/task/task_runner.h"

namespace uniquanf {

// OK when nothing lies at `uri`, or only what an interrupted finalize of the same plan left there.
absl::Status CheckOutputIsFree(absl::string_view uri, absl::string_view plan_sha256,
                               const DataOptions& options = {});
// Writes the marker, unless it is there for the same plan.
absl::Status ClaimOutput(ObjectStore* output, absl::string_view plan_sha256);
// Puts the manifest if there is none; one with the same bytes counts as ours (a repeated finalize).
// Then removes the marker. Who has a key signs first: a manifest that is there is a signed one.
absl::Status PublishManifest(ObjectStore* output, absl::string_view manifest_json,
                             const std::optional<ResultSigner>& signer);

// Removes what an unfinished finalize of this plan left at `uri`; leaves everything else alone.
// REQUIRES: no other process is at work on it.
absl::Status AbandonOutput(absl::string_view uri, absl::string_view plan_sha256,
                           const DataOptions& options = {});

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_OUTPUT_H_
