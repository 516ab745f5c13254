#include "worker/agent/failure_class.h"

#include <string>
#include <utility>

#include "common/base/redact.h"
#include "common/base/status.h"
#include "common/base/utf8.h"
#include "worker/task/lost_inputs.h"

namespace uniquanf {

v1::FailureClass FailureClassOf(const absl::Status& status) {
  const std::string reason = ErrorReason(status);
  if (!LostInputsOf(status).empty()) return v1::INPUT_LOST;
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      // What the assignment itself says is wrong everywhere.
      if (reason == "INVALID_SPEC" || reason == "INVALID_URI") return v1::INVALID_INPUT;
      return v1::ENVIRONMENT;
    case absl::StatusCode::kPermissionDenied:
      // What the server's policy says holds for every worker.
      if (reason == "DATA_NOT_ALLOWED") return v1::INVALID_INPUT;
      [[fallthrough]];
    // What the job names is missing, refused or not as expected. That may be so everywhere, or only
    // here: a mount that is missing or stale, expired credentials, a wrong clock, another build.
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
      return v1::ENVIRONMENT;
    case absl::StatusCode::kResourceExhausted:
      // A full disk can be emptied while the task waits for its next attempt; a model that is too
      // large for the device stays so.
      return reason == "OUT_OF_MEMORY" ? v1::OUT_OF_MEMORY : v1::TRANSIENT;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kDataLoss:  // a torn read; a broken object fails every attempt
      return v1::TRANSIENT;
    case absl::StatusCode::kInternal:
      return reason == "DEVICE_ERROR" ? v1::TRANSIENT : v1::INTERNAL;
    default:
      return v1::INTERNAL;
  }
}

v1::TaskFailure FailureFromStatus(const absl::Status& status) {
  v1::TaskFailure failure;
  failure.set_failure_class(FailureClassOf(status));
  const std::string reason = ErrorReason(status);
  failure.set_reason(reason.empty() ? absl::StatusCodeToString(status.code()) : reason);
  failure.set_message(ShortText(RedactCredentials(status.message())));
  for (std::string& sha256 : LostInputsOf(status)) failure.add_missing_sha256(std::move(sha256));
  return failure;
}

bool NeedsRestart(const absl::Status& status) {
  return status.code() == absl::StatusCode::kInternal && ErrorReason(status) == "DEVICE_ERROR";
}

}  // namespace uniquanf
