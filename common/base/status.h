// Error handling helpers on top of absl::Status.
//
// Every error that a user can see carries a *reason*: a stable UPPER_SNAKE_CASE word that programs
// can switch on (it becomes google.rpc.ErrorInfo.reason on the wire, see
// common/rpc/status_proto.h). Thread safety: free functions, no state.
#ifndef UNIQUANF_COMMON_BASE_STATUS_H_
#define UNIQUANF_COMMON_BASE_STATUS_H_

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace uniquanf {

// A status with `reason` attached as a payload. REQUIRES: code != kOk.
absl::Status MakeError(absl::StatusCode code, absl::string_view reason, absl::string_view message);

// Shorthands for the codes that are used most. The message names the offending thing and the fix.
absl::Status InvalidInput(absl::string_view reason, absl::string_view message);  // kInvalidArgument
absl::Status FailedPrecondition(absl::string_view reason, absl::string_view message);
absl::Status NotFound(absl::string_view reason, absl::string_view message);
absl::Status Unavailable(absl::string_view reason, absl::string_view message);

// The reason attached by MakeError, or "" when there is none.
std::string ErrorReason(const absl::Status& status);

// `status` with "`context`: " put before its message; code and payloads stay. OK stays OK.
absl::Status Annotate(const absl::Status& status, absl::string_view context);

}  // namespace uniquanf

#define UQ_CONCAT_INNER(a, b) a##b
#define UQ_CONCAT(a, b) UQ_CONCAT_INNER(a, b)

// Returns from the enclosing function when `expr` (an absl::Status) is not OK.
#define UQ_RETURN_IF_ERROR(expr)             \
  do {                                       \
    absl::Status uq_status_ = (expr);        \
    if (!uq_status_.ok()) return uq_status_; \
  } while (false)

// Declares or assigns `lhs` from `expr` (an absl::StatusOr<T>), or returns its status.
#define UQ_ASSIGN_OR_RETURN(lhs, expr) \
  UQ_ASSIGN_OR_RETURN_IMPL(UQ_CONCAT(uq_statusor_, __LINE__), lhs, expr)
#define UQ_ASSIGN_OR_RETURN_IMPL(statusor, lhs, expr) \
  auto statusor = (expr);                             \
  if (!statusor.ok()) return statusor.status();       \
  lhs = std::move(statusor).value()

#endif  // UNIQUANF_COMMON_BASE_STATUS_H_
