#include "common/rpc/status_proto.h"

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/base/redact.h"
#include "common/base/status.h"
#include "common/base/utf8.h"
#include "common/base/violations.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace uniquanf {
namespace {

// All violations together, of what a call's trailers hold beside the message.
constexpr size_t kMaxViolationBytes = 2000;

google::rpc::BadRequest BadRequestOf(const std::vector<FieldViolation>& violations) {
  google::rpc::BadRequest bad_request;
  size_t bytes = 0;
  for (size_t i = 0; i < violations.size(); ++i) {
    const std::string field = ShortText(violations[i].field, 200);
    const std::string description = ShortText(RedactCredentials(violations[i].description), 500);
    bytes += field.size() + description.size();
    auto* violation = bad_request.add_field_violations();
    if (bytes > kMaxViolationBytes) {
      violation->set_description(absl::StrCat("and ", violations.size() - i, " more"));
      break;
    }
    violation->set_field(field);
    violation->set_description(description);
  }
  return bad_request;
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  // The codes of absl and gRPC are the same numbers by design.
  const auto code = static_cast<grpc::StatusCode>(status.raw_code() >= 1 && status.raw_code() <= 16
                                                      ? status.raw_code()
                                                      : grpc::StatusCode::UNKNOWN);
  const std::string message = ShortText(RedactCredentials(status.message()));
  const std::string reason = ErrorReason(status);
  if (reason.empty()) return grpc::Status(code, message);
  google::rpc::ErrorInfo info;
  info.set_reason(ShortText(reason));
  info.set_domain(kErrorDomain);
  const google::rpc::BadRequest bad_request = BadRequestOf(FieldViolations(status));
  if (bad_request.field_violations_size() > 0) {
    (*info.mutable_metadata())["field"] = bad_request.field_violations(0).field();
  }
  google::rpc::Status details;
  details.set_code(code);
  details.set_message(message);
  details.add_details()->PackFrom(info);
  if (bad_request.field_violations_size() > 0) details.add_details()->PackFrom(bad_request);
  return grpc::Status(code, message, details.SerializeAsString());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const int raw = static_cast<int>(status.error_code());
  const auto code =
      raw >= 1 && raw <= 16 ? static_cast<absl::StatusCode>(raw) : absl::StatusCode::kUnknown;
  google::rpc::Status details;
  if (details.ParseFromString(status.error_details())) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad_request;
    std::string reason;
    std::vector<FieldViolation> violations;
    for (const auto& detail : details.details()) {
      if (detail.Is<google::rpc::ErrorInfo>() && detail.UnpackTo(&info) &&
          info.domain() == kErrorDomain && reason.empty()) {
        reason = info.reason();
      } else if (detail.Is<google::rpc::BadRequest>() && detail.UnpackTo(&bad_request)) {
        for (const auto& violation : bad_request.field_violations()) {
          violations.push_back({violation.field(), violation.description()});
        }
      }
    }
    if (!reason.empty()) {
      return WithViolations(MakeError(code, reason, status.error_message()), violations);
    }
  }
  return absl::Status(code, status.error_message());
}

}  // namespace uniquanf
