#include "server/http/route_table.h"

#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/status.h"
#include "google/api/annotations.pb.h"
#include "uniquanf/v1/stream_cursor.pb.h"

namespace uniquanf::server {
namespace {

using google::api::HttpRule;
using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::MethodDescriptor;

absl::Status Invalid(const MethodDescriptor& method, absl::string_view what) {
  return InvalidInput("INVALID_HTTP_RULE", absl::StrCat(method.full_name(), ": ", what));
}

std::pair<std::string, std::string> PatternOf(const HttpRule& rule) {
  switch (rule.pattern_case()) {
    case HttpRule::kGet:
      return {"GET", rule.get()};
    case HttpRule::kPut:
      return {"PUT", rule.put()};
    case HttpRule::kPost:
      return {"POST", rule.post()};
    case HttpRule::kDelete:
      return {"DELETE", rule.delete_()};
    case HttpRule::kPatch:
      return {"PATCH", rule.patch()};
    case HttpRule::PATTERN_NOT_SET:
      break;
  }
  return {};
}

absl::StatusOr<Route> MakeRoute(const MethodDescriptor& method, const HttpRule& rule) {
  Route route;
  route.method = &method;
  std::tie(route.verb, route.text) = PatternOf(rule);
  UQ_ASSIGN_OR_RETURN(route.path, PathTemplate::Parse(route.text));
  const Descriptor* const request = method.input_type();
  for (const PathTemplate::Variable& variable : route.path.variables()) {
    const FieldDescriptor* const field = FindField(request, variable.field);
    if (field == nullptr || field->is_repeated() ||
        field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      return Invalid(method, absl::StrCat("its path has {", variable.field,
                                          "}, which is no plain field of the request"));
    }
  }
  route.body = rule.body();
  if (!route.body.empty() && route.body != "*") {
    const FieldDescriptor* const field = request->FindFieldByName(route.body);
    if (field == nullptr || field->is_repeated() ||
        field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
      return Invalid(method, absl::StrCat("its body is no message of the request: ", route.body));
    }
  }
  if (!rule.response_body().empty() || method.client_streaming()) {
    return Invalid(method, "response_body and streams of requests are not supported");
  }
  if (method.options().HasExtension(v1::stream_cursor)) {
    const v1::StreamCursor& cursor = method.options().GetExtension(v1::stream_cursor);
    if (FindField(request, cursor.request_field()) == nullptr ||
        FindField(method.output_type(), cursor.response_field()) == nullptr ||
        (!cursor.unfinished_field().empty() &&
         FindField(method.output_type(), cursor.unfinished_field()) == nullptr)) {
      return Invalid(method, "its stream_cursor names a field that is not there");
    }
    route.cursor_request_field = cursor.request_field();
    route.cursor_response_field = cursor.response_field();
    route.cursor_unfinished_field = cursor.unfinished_field();
  }
  return route;
}

}  // namespace

const FieldDescriptor* FindField(const Descriptor* message, absl::string_view path) {
  const FieldDescriptor* field = nullptr;
  for (const absl::string_view part : absl::StrSplit(path, '.')) {
    if (field != nullptr) {
      if (field->is_repeated() || field->message_type() == nullptr) return nullptr;
      message = field->message_type();
    }
    const std::string name(part);
    field = message->FindFieldByName(name);
    if (field == nullptr) field = message->FindFieldByCamelcaseName(name);
    if (field == nullptr) return nullptr;
  }
  return field;
}

absl::StatusOr<RouteTable> RouteTable::Make(
    const std::vector<const google::protobuf::ServiceDescriptor*>& services) {
  RouteTable table;
  std::set<std::pair<std::string, std::string>> known;
  for (const auto* service : services) {
    for (int i = 0; i < service->method_count(); ++i) {
      const MethodDescriptor& method = *service->method(i);
      if (!method.options().HasExtension(google::api::http)) {
        return Invalid(method, "it has no google.api.http annotation");
      }
      const HttpRule& rule = method.options().GetExtension(google::api::http);
      std::vector<const HttpRule*> rules = {&rule};
      for (const HttpRule& other : rule.additional_bindings()) rules.push_back(&other);
      for (const HttpRule* one : rules) {
        UQ_ASSIGN_OR_RETURN(Route route, MakeRoute(method, *one));
        if (!known
                 .emplace(route.verb, absl::StrCat(absl::StrJoin(route.path.segments(), "/"), ":",
                                                   route.path.verb()))
                 .second) {
          return Invalid(method, absl::StrCat("another method has ", route.verb, " ", route.text));
        }
        table.routes_.push_back(std::move(route));
      }
    }
  }
  return table;
}

// A custom verb goes before a name that ends in it.
RouteMatch RouteTable::Find(absl::string_view verb, absl::string_view path) const {
  RouteMatch found;
  for (const Route& route : routes_) {
    std::optional<std::map<std::string, std::string>> variables = route.path.Match(path);
    if (!variables.has_value()) continue;
    if (route.verb != verb) {
      found.other_verbs.insert(route.verb);
      continue;
    }
    if (found.route != nullptr && route.path.verb().empty()) continue;
    found.route = &route;
    found.variables = *std::move(variables);
    if (!route.path.verb().empty()) break;
  }
  return found;
}

}  // namespace uniquanf::server
