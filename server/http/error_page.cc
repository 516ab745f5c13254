#include "server/http/error_page.h"

#include "common/base/utf8.h"
#include "google/rpc/status.pb.h"
#include "server/http/request_message.h"

namespace uniquanf::server {

int HttpCodeOf(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::OK:
      return 200;
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::FAILED_PRECONDITION:
    case grpc::StatusCode::OUT_OF_RANGE:
      return 400;
    case grpc::StatusCode::UNAUTHENTICATED:
      return 401;
    case grpc::StatusCode::PERMISSION_DENIED:
      return 403;
    case grpc::StatusCode::NOT_FOUND:
      return 404;
    case grpc::StatusCode::ALREADY_EXISTS:
    case grpc::StatusCode::ABORTED:
      return 409;
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return 429;
    case grpc::StatusCode::CANCELLED:
      return 499;
    case grpc::StatusCode::UNIMPLEMENTED:
      return 501;
    case grpc::StatusCode::UNAVAILABLE:
      return 503;
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return 504;
    default:
      return 500;
  }
}

std::string StatusJson(const grpc::Status& status) {
  google::rpc::Status page;
  if (!page.ParseFromString(status.error_details())) page.Clear();
  page.set_code(status.error_code());
  page.set_message(ShortText(status.error_message()));
  if (absl::StatusOr<std::string> json = MessageToJson(page); json.ok()) return *json;
  page.clear_details();  // of a type that is not linked here
  return MessageToJson(page).value_or("{}");
}

}  // namespace uniquanf::server
