// A request's message out of a path, a query and a JSON body, as google.api.http binds them: the
// path's variables to the fields that they name, the body to the field that the rule says or to all
// the rest, and the query to what is neither.
//
// Thread safety: free functions. Errors: kInvalidArgument (INVALID_REQUEST) with every field that
// is unknown, named by its path ("job.spec.overrides[2].bitz").
#ifndef UNIQUANF_SERVER_HTTP_REQUEST_MESSAGE_H_
#define UNIQUANF_SERVER_HTTP_REQUEST_MESSAGE_H_

#include <google/protobuf/message.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/http/route_table.h"

namespace uniquanf::server {

// `query`: as sent, without its '?'. An empty body is one without fields.
absl::StatusOr<std::unique_ptr<google::protobuf::Message>> MakeRequestMessage(
    const RouteMatch& match, absl::string_view query, absl::string_view body);

// Sets the field at `path` (FindField) from text, as in a query; adds to a repeated one.
absl::Status SetField(absl::string_view path, const std::string& value,
                      google::protobuf::Message* message);
// The field at `path` as text: "" where it is not set, "true" for true.
std::string GetField(absl::string_view path, const google::protobuf::Message& message);

// The JSON of a message, in one line: names as in the proto, what has its default left out.
absl::StatusOr<std::string> MessageToJson(const google::protobuf::Message& message);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_HTTP_REQUEST_MESSAGE_H_
