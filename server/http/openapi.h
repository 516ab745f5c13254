// The OpenAPI 3 document of what a route table serves, from the same descriptors.
// Thread safety: free function.
#ifndef UNIQUANF_SERVER_HTTP_OPENAPI_H_
#define UNIQUANF_SERVER_HTTP_OPENAPI_H_

#include <string>

#include "server/http/route_table.h"

namespace uniquanf::server {

// JSON, indented; the same for the same protos and version.
std::string OpenApiDocument(const RouteTable& routes, const std::string& version);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_HTTP_OPENAPI_H_
