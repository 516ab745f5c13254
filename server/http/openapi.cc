#include "server/http/openapi.h"

#include <algorithm>
#include <set>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/json_util.h"
#include "google/api/field_behavior.pb.h"
#include "google/rpc/status.pb.h"

namespace uniquanf::server {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

bool Has(const FieldDescriptor& field, google::api::FieldBehavior behavior) {
  const google::protobuf::FieldOptions& options = field.options();
  for (int i = 0; i < options.ExtensionSize(google::api::field_behavior); ++i) {
    if (options.GetExtension(google::api::field_behavior, i) == behavior) return true;
  }
  return false;
}

// Schemas of messages and enums, each once, as they are met.
class Schemas {
 public:
  OrderedJson OfField(const FieldDescriptor& field) {
    if (field.is_map()) {
      return {{"type", "object"},
              {"additionalProperties", OfValue(*field.message_type()->map_value())}};
    }
    if (field.is_repeated()) return {{"type", "array"}, {"items", OfValue(field)}};
    return OfValue(field);
  }
  OrderedJson OfMessage(const Descriptor& type) {
    if (std::optional<OrderedJson> known = WellKnown(type)) return *std::move(known);
    const std::string name = Name(type.full_name());
    if (names_.insert(name).second) {
      OrderedJson properties = OrderedJson::object(), required = OrderedJson::array();
      for (int i = 0; i < type.field_count(); ++i) {
        const FieldDescriptor& field = *type.field(i);
        OrderedJson schema = OfField(field);
        if (Has(field, google::api::OUTPUT_ONLY)) {
          // Nothing may stand beside a $ref.
          if (schema.contains("$ref")) schema = {{"allOf", OrderedJson::array({schema})}};
          schema["readOnly"] = true;
        }
        if (Has(field, google::api::REQUIRED)) required.push_back(field.name());
        properties[field.name()] = std::move(schema);
      }
      OrderedJson schema = {{"type", "object"}, {"properties", std::move(properties)}};
      if (!required.empty()) schema["required"] = std::move(required);
      schemas_[name] = std::move(schema);
    }
    return {{"$ref", absl::StrCat("#/components/schemas/", name)}};
  }
  OrderedJson Sorted() const {
    OrderedJson sorted = OrderedJson::object();
    for (const auto& [name, schema] : schemas_) sorted[name] = schema;
    return sorted;
  }

 private:
  static std::string Name(absl::string_view full_name) {
    absl::ConsumePrefix(&full_name, "uniquanf.v1.");
    return std::string(full_name);
  }
  static std::optional<OrderedJson> WellKnown(const Descriptor& type) {
    const std::string& name = type.full_name();
    if (name == "google.protobuf.Timestamp") {
      return OrderedJson{{"type", "string"}, {"format", "date-time"}};
    }
    if (name == "google.protobuf.Duration") {
      return OrderedJson{{"type", "string"}, {"pattern", "^-?[0-9]+(\\.[0-9]{1,9})?s$"}};
    }
    if (name == "google.protobuf.Empty") return OrderedJson{{"type", "object"}};
    if (name == "google.protobuf.Any") {
      return OrderedJson{{"type", "object"},
                         {"properties", {{"@type", {{"type", "string"}}}}},
                         {"additionalProperties", true}};
    }
    return std::nullopt;
  }
  OrderedJson OfValue(const FieldDescriptor& field) {
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_BOOL:
        return {{"type", "boolean"}};
      case FieldDescriptor::CPPTYPE_INT32:
        return {{"type", "integer"}, {"format", "int32"}};
      case FieldDescriptor::CPPTYPE_UINT32:
        return {{"type", "integer"}, {"format", "int64"}, {"minimum", 0}};
      case FieldDescriptor::CPPTYPE_INT64:
        return {{"type", "string"}, {"format", "int64"}};
      case FieldDescriptor::CPPTYPE_UINT64:
        return {{"type", "string"}, {"format", "uint64"}};
      case FieldDescriptor::CPPTYPE_FLOAT:
        return {{"type", "number"}, {"format", "float"}};
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return {{"type", "number"}, {"format", "double"}};
      case FieldDescriptor::CPPTYPE_STRING:
        if (field.type() == FieldDescriptor::TYPE_BYTES) {
          return {{"type", "string"}, {"format", "byte"}};
        }
        return {{"type", "string"}};
      case FieldDescriptor::CPPTYPE_ENUM: {
        const auto& type = *field.enum_type();
        const std::string name = Name(type.full_name());
        if (names_.insert(name).second) {
          OrderedJson values = OrderedJson::array();
          for (int i = 0; i < type.value_count(); ++i) values.push_back(type.value(i)->name());
          schemas_[name] = {{"type", "string"}, {"enum", std::move(values)}};
        }
        return {{"$ref", absl::StrCat("#/components/schemas/", name)}};
      }
      case FieldDescriptor::CPPTYPE_MESSAGE:
        return OfMessage(*field.message_type());
    }
    return OrderedJson::object();
  }

  std::set<std::string> names_;
  std::map<std::string, OrderedJson> schemas_;
};

OrderedJson Parameter(const std::string& name, const char* in, OrderedJson schema) {
  OrderedJson parameter = {{"name", name}, {"in", in}};
  if (std::string_view(in) == "path") parameter["required"] = true;
  parameter["schema"] = std::move(schema);
  return parameter;
}

// "jobs/*" as "jobs/{job}".
std::string PathOf(const Route& route, OrderedJson* parameters) {
  std::string path;
  const std::vector<std::string>& segments = route.path.segments();
  for (size_t i = 0; i < segments.size(); ++i) {
    if (segments[i] != "*" && segments[i] != "**") {
      absl::StrAppend(&path, "/", segments[i]);
      continue;
    }
    std::string name(absl::StripSuffix(i == 0 ? "name" : segments[i - 1], "s"));
    if (segments[i] == "**") name = "path";
    absl::StrAppend(&path, "/{", name, "}");
    parameters->push_back(Parameter(name, "path", {{"type", "string"}}));
  }
  if (!route.path.verb().empty()) absl::StrAppend(&path, ":", route.path.verb());
  return path;
}

bool InPath(const Route& route, const std::string& field) {
  for (const PathTemplate::Variable& variable : route.path.variables()) {
    if (variable.field == field) return true;
  }
  return false;
}

OrderedJson Answer(const char* description, const char* type, OrderedJson schema) {
  return {{"description", description}, {"content", {{type, {{"schema", std::move(schema)}}}}}};
}

OrderedJson Operation(const Route& route, const std::string& id, OrderedJson parameters,
                      Schemas* schemas) {
  const Descriptor& request = *route.method->input_type();
  if (route.body != "*") {
    for (int i = 0; i < request.field_count(); ++i) {
      const FieldDescriptor& field = *request.field(i);
      if (field.name() == route.body || InPath(route, field.name())) continue;
      parameters.push_back(Parameter(field.name(), "query", schemas->OfField(field)));
    }
  }
  if (!route.cursor_request_field.empty()) {
    parameters.push_back(Parameter("Last-Event-ID", "header", {{"type", "string"}}));
  }
  OrderedJson operation = {{"operationId", id},
                           {"tags", OrderedJson::array({route.method->service()->name()})}};
  if (!parameters.empty()) operation["parameters"] = std::move(parameters);
  if (!route.body.empty()) {
    OrderedJson schema;
    if (route.body == "*") {
      // The path has what the request's message requires.
      schema = {{"type", "object"}};
      OrderedJson properties = OrderedJson::object();
      for (int i = 0; i < request.field_count(); ++i) {
        const FieldDescriptor& field = *request.field(i);
        if (!InPath(route, field.name())) properties[field.name()] = schemas->OfField(field);
      }
      schema["properties"] = std::move(properties);
    } else {
      schema = schemas->OfField(*request.FindFieldByName(route.body));
    }
    operation["requestBody"] = {{"required", route.body != "*"},
                                {"content", {{"application/json", {{"schema", schema}}}}}};
  }
  OrderedJson schema = schemas->OfMessage(*route.method->output_type());
  operation["responses"]["200"] =
      route.method->server_streaming()
          ? Answer("Events: each `data` is one of these, the last has `event: end` and a Status",
                   "text/event-stream", std::move(schema))
          : Answer("OK", "application/json", std::move(schema));
  operation["responses"]["default"] = {{"$ref", "#/components/responses/Error"}};
  return operation;
}

}  // namespace

std::string OpenApiDocument(const RouteTable& routes, const std::string& version) {
  Schemas schemas;
  std::map<std::string, OrderedJson> paths;
  std::map<std::string, int> times;
  for (const Route& route : routes.routes()) {
    OrderedJson parameters = OrderedJson::array();
    const std::string path = PathOf(route, &parameters);
    const int count = ++times[route.method->name()];
    const std::string id =
        count == 1 ? route.method->name() : absl::StrCat(route.method->name(), "_", count);
    paths[path][absl::AsciiStrToLower(route.verb)] =
        Operation(route, id, std::move(parameters), &schemas);
  }
  OrderedJson error =
      Answer("An error", "application/json", schemas.OfMessage(*google::rpc::Status::descriptor()));
  OrderedJson document = {
      {"openapi", "3.0.3"},
      {"info",
       {{"title", "UniQuanF"},
        {"version", version},
        {"description",
         "Quantization as a service. Comments in proto/uniquanf/v1 are the specification."}}},
      {"servers", OrderedJson::array({{{"url", "/"}}})},
      {"security",
       OrderedJson::array({{{"bearer", OrderedJson::array()}}, OrderedJson::object()})}};
  for (auto& [path, operations] : paths) document["paths"][path] = std::move(operations);
  document["components"] = {
      {"schemas", schemas.Sorted()},
      {"responses", {{"Error", std::move(error)}}},
      {"securitySchemes", {{"bearer", {{"type", "http"}, {"scheme", "bearer"}}}}}};
  return IndentedJson(document);
}

}  // namespace uniquanf::server
