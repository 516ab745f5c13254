// The one table of what there is over HTTP, made from the google.api.http annotations of the
// services' descriptors: a method that is added to a proto with its annotation has its routes.
//
// Thread safety: immutable once made. Lifetime: borrows the descriptors (the process's own).
#ifndef UNIQUANF_SERVER_HTTP_ROUTE_TABLE_H_
#define UNIQUANF_SERVER_HTTP_ROUTE_TABLE_H_

#include <google/protobuf/descriptor.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/http/path_template.h"

namespace uniquanf::server {

struct Route {
  std::string verb;  // "GET"
  PathTemplate path;
  std::string text;  // the annotation's: "/v1/{name=jobs/*}"
  const google::protobuf::MethodDescriptor* method = nullptr;
  std::string body;  // "": none; "*": the whole request; else the field that it is
  // Where a stream is taken up again; empty: it cannot be (proto/uniquanf/v1/stream_cursor.proto).
  std::string cursor_request_field, cursor_response_field, cursor_unfinished_field;
};

struct RouteMatch {
  const Route* route = nullptr;  // null: there is none
  std::map<std::string, std::string> variables;
  std::set<std::string> other_verbs;  // that the path has, where it does not have this one
};

class RouteTable {
 public:
  // Errors: kInvalidArgument (INVALID_HTTP_RULE): a method without an annotation or with one that
  // does not fit its request; two methods with one verb and path.
  static absl::StatusOr<RouteTable> Make(
      const std::vector<const google::protobuf::ServiceDescriptor*>& services);

  RouteMatch Find(absl::string_view verb, absl::string_view path) const;
  const std::vector<Route>& routes() const { return routes_; }

 private:
  std::vector<Route> routes_;
};

// The field of `message` at "job.tenant", by its name in the proto or in JSON, through singular
// messages; null: there is none.
const google::protobuf::FieldDescriptor* FindField(const google::protobuf::Descriptor* message,
                                                   absl::string_view path);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_HTTP_ROUTE_TABLE_H_
