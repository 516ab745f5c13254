// A job as a file: what `submit --file` reads, which is what `get -o yaml` prints.
// Thread safety: free functions. Errors: kInvalidArgument (INVALID_JOB_FILE, INVALID_SPEC,
// INVALID_YAML) names the field.
#ifndef UNIQUANF_CLIENT_CLI_JOB_FILE_H_
#define UNIQUANF_CLIENT_CLI_JOB_FILE_H_

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/include/uniquanf/client.h"
#include "common/spec/presets.h"

namespace uniquanf::cli {

// The document at `where`, a file or "-" for standard input, as JSON.
absl::StatusOr<nlohmann::json> ReadDocument(absl::string_view where);
// Its JSON text, for --spec.
absl::StatusOr<std::string> ReadSpecDocument(absl::string_view where);

// Members: job_id, request_id, tenant, priority, labels, device, deadline (RFC 3339, or a duration
// from now), time_to_live ("24h") or time_to_live_seconds, and spec; the other members of a job
// that the server has shown are passed over, its output_uri too (the new job needs one of its own).
// A document with model_uri is a spec alone. A spec may name a preset; `preset` takes its place.
absl::Status ReadJobFile(const nlohmann::json& document, std::optional<Preset> preset,
                         SubmitOptions* options);

// A point in time, or a duration from now.
absl::Status ParseDeadline(absl::string_view text, std::optional<absl::Time>* deadline);
absl::Status ParseTimeToLive(absl::string_view text, std::optional<absl::Duration>* time_to_live);

}  // namespace uniquanf::cli

#endif  // UNIQUANF_CLIENT_CLI_JOB_FILE_H_
