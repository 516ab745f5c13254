#include "common/rpc/status_proto.h"

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"
#include "common/base/status.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace uniquanf {
namespace {

constexpr size_t kMaxMessageBytes = 2000;

// Length of the UTF-8 sequence at the start of `text`, or 0 when it is none (RFC 3629, without the
// finer points of overlong three- and four-byte forms, which protobuf accepts too).
size_t Utf8Length(absl::string_view text) {
  const auto byte = [&text](size_t i) { return static_cast<unsigned char>(text[i]); };
  size_t length = 0;
  if (byte(0) < 0x80) return 1;
  if (byte(0) >= 0xC2 && byte(0) <= 0xDF) length = 2;
  if (byte(0) >= 0xE0 && byte(0) <= 0xEF) length = 3;
  if (byte(0) >= 0xF0 && byte(0) <= 0xF4) length = 4;
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  if (byte(0) == 0xE0 && byte(1) < 0xA0) return 0;  // overlong
  if (byte(0) == 0xED && byte(1) > 0x9F) return 0;  // surrogates
  if (byte(0) == 0xF0 && byte(1) < 0x90) return 0;  // overlong
  if (byte(0) == 0xF4 && byte(1) > 0x8F) return 0;  // beyond U+10FFFF
  return length;
}

std::string WireText(absl::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    if (out.size() + length > kMaxMessageBytes) {
      out += "...";
      break;
    }
    if (length == 0) {
      out.push_back('?');
      text.remove_prefix(1);
    } else {
      out.append(text.data(), length);
      text.remove_prefix(length);
    }
  }
  return out;
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  // The codes of absl and gRPC are the same numbers by design.
  const auto code = static_cast<grpc::StatusCode>(status.raw_code() >= 1 && status.raw_code() <= 16
                                                      ? status.raw_code()
                                                      : grpc::StatusCode::UNKNOWN);
  const std::string message = WireText(status.message());
  const std::string reason = ErrorReason(status);
  if (reason.empty()) return grpc::Status(code, message);
  google::rpc::ErrorInfo info;
  info.set_reason(WireText(reason));
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
