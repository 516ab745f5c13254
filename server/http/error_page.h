// Errors over HTTP: the JSON of google.rpc.Status, with the details that a gRPC client gets, and
// the HTTP code that AIP-193 gives to its code.
//
// Thread safety: free functions.
#ifndef UNIQUANF_SERVER_HTTP_ERROR_PAGE_H_
#define UNIQUANF_SERVER_HTTP_ERROR_PAGE_H_

#include <grpcpp/support/status.h>

#include <string>

namespace uniquanf::server {

// 404 of NOT_FOUND and so on; 200 of OK, 500 of what has no code of its own.
int HttpCodeOf(grpc::StatusCode code);
// {"code":5,"message":"no job \"x\"","details":[{"@type":...,"reason":"JOB_NOT_FOUND",...}]}
std::string StatusJson(const grpc::Status& status);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_HTTP_ERROR_PAGE_H_
