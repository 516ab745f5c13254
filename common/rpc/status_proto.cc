#include "common/rpc/status_proto.h"

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"
#include "common/base/status.h"
#include "common/base/utf8.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace uniquanf {
grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  // The codes of absl and gRPC are the same numbers by design.
  const auto code = static_cast<grpc::StatusCode>(status.raw_code() >= 1 && status.raw_code() <= 16
                                                      ? status.raw_code()
                                                      : grpc::StatusCode::UNKNOWN);
  const std::string message = ShortText(status.message());
  const std::string reason = ErrorReason(status);
  if (reason.empty()) return grpc::Status(code, message);
  google::rpc::ErrorInfo info;
  info.set_reason(ShortText(reason));
  info.set_domain(kErrorDomain);
  google::rpc::Status details;
  details.set_code(code);
  details.set_message(message);
  details.add_details()->PackFrom(info);
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
    for (const auto& detail : details.details()) {
      if (detail.Is<google::rpc::ErrorInfo>() && detail.UnpackTo(&info) &&
          info.domain() == kErrorDomain && !info.reason().empty()) {
        return MakeError(code, info.reason(), status.error_message());
      }
    }
  }
  return absl::Status(code, status.error_message());
}

}  // namespace uniquanf
