#include "server/http/request_message.h"

#include <google/protobuf/util/json_util.h>

#include <set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/json_util.h"
#include "common/base/printable.h"
#include "common/base/status.h"
#include "common/base/violations.h"
#include "server/http/percent_encoding.h"

namespace uniquanf::server {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr char kReason[] = "INVALID_REQUEST";
// Of a name or a value in a message for people.
constexpr size_t kMaxShownBytes = 100;

std::string Shown(absl::string_view text) {
  return absl::StrCat("\"", PrintableText(text.substr(0, kMaxShownBytes)),
                      text.size() > kMaxShownBytes ? "...\"" : "\"");
}

std::string Join(absl::string_view path, absl::string_view name) {
  return path.empty() ? std::string(name) : absl::StrCat(path, ".", name);
}

bool IsOfProtobuf(const Descriptor& type) {
  return type.file()->package() == "google.protobuf";  // with a JSON form of its own
}

// Members of `json` that `type` does not have. Protobuf's parser would name the first alone.
void FindUnknown(const nlohmann::json& json, const Descriptor& type, const std::string& path,
                 Violations* violations) {
  if (!json.is_object() || IsOfProtobuf(type)) return;
  for (const auto& [key, value] : json.items()) {
    const std::string at = Join(path, PrintableText(key.substr(0, kMaxShownBytes)));
    const FieldDescriptor* const field =
        absl::StrContains(key, ".") ? nullptr : FindField(&type, key);
    if (field == nullptr) {
      violations->Add(
          kReason, at,
          absl::StrCat("unknown field ", at, ": ", type.name(), " has none of that name"));
      continue;
    }
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (field->is_map()) {
      const FieldDescriptor* const values = field->message_type()->map_value();
      if (values->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || !value.is_object()) continue;
      for (const auto& [entry, inner] : value.items()) {
        FindUnknown(inner, *values->message_type(), Join(at, PrintableText(entry)), violations);
      }
    } else if (field->is_repeated()) {
      if (!value.is_array()) continue;
      for (size_t i = 0; i < value.size(); ++i) {
        FindUnknown(value[i], *field->message_type(), absl::StrCat(at, "[", i, "]"), violations);
      }
    } else {
      FindUnknown(value, *field->message_type(), at, violations);
    }
  }
}

// "(spec) bits: invalid value ..." of protobuf's parser as a field and what is wrong with it.
absl::Status ParserError(absl::string_view prefix, absl::string_view text) {
  std::string field(prefix);
  absl::string_view what = text;
  if (absl::StartsWith(what, "(") && absl::StrContains(what, ")")) {
    field = Join(field, what.substr(1, what.find(')') - 1));
    what.remove_prefix(what.find(')') + 1);
    while (absl::StartsWith(what, ":") || absl::StartsWith(what, " ")) what.remove_prefix(1);
  }
  const size_t colon = what.find(": ");
  if (colon != what.npos && what.substr(0, colon).find_first_of(" \"") == what.npos) {
    field = Join(field, what.substr(0, colon));
    what.remove_prefix(colon + 2);
  }
  const std::string shown = PrintableText(what.substr(0, 4 * kMaxShownBytes));
  if (field.empty()) return InvalidInput(kReason, absl::StrCat("the request body: ", shown));
  const std::string at = PrintableText(field.substr(0, 4 * kMaxShownBytes));
  return InvalidField(kReason, at, absl::StrCat(at, ": ", shown));
}

absl::Status ReadBody(absl::string_view body, absl::string_view path, Message* message) {
  if (body.find_first_not_of(" \t\r\n") == body.npos) return absl::OkStatus();
  UQ_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(body, "the request body", kReason));
  if (!json.is_object()) return InvalidInput(kReason, "the request body is no JSON object");
  Violations unknown;
  FindUnknown(json, *message->GetDescriptor(), std::string(path), &unknown);
  UQ_RETURN_IF_ERROR(unknown.status());
  const auto status = google::protobuf::util::JsonStringToMessage(
      google::protobuf::StringPiece(body.data(), body.size()), message);
  if (status.ok()) return absl::OkStatus();
  return ParserError(path, {status.message().data(), status.message().size()});
}

// The message that holds the last field of the path, made where it is not there yet.
Message* HolderOf(absl::string_view path, Message* message, const FieldDescriptor** field) {
  const std::vector<std::string> parts = absl::StrSplit(path, '.');
  for (size_t i = 0;; ++i) {
    *field = FindField(message->GetDescriptor(), parts[i]);
    if (i + 1 == parts.size()) return message;
    message = message->GetReflection()->MutableMessage(message, *field);
  }
}

// `value` as JSON of the field's type, so that one parser knows how each type is written.
std::string AsJson(const FieldDescriptor& field, const std::string& value) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      return value;
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_INT64:
    case FieldDescriptor::CPPTYPE_UINT32:
    case FieldDescriptor::CPPTYPE_UINT64:
    case FieldDescriptor::CPPTYPE_FLOAT:
    case FieldDescriptor::CPPTYPE_DOUBLE:
    case FieldDescriptor::CPPTYPE_ENUM:
    case FieldDescriptor::CPPTYPE_STRING:
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return nlohmann::json(value).dump();
  }
  return value;
}

struct Parameter {
  std::string name, value;
};

absl::StatusOr<std::vector<Parameter>> ParseQuery(absl::string_view query) {
  std::vector<Parameter> parameters;
  for (const absl::string_view part : absl::StrSplit(query, '&', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> words =
        absl::StrSplit(part, absl::MaxSplits('=', 1));
    std::optional<std::string> name = PercentDecode(words.first, PlusIs::kSpace);
    std::optional<std::string> value = PercentDecode(words.second, PlusIs::kSpace);
    if (!name.has_value() || !value.has_value()) {
      return InvalidInput(kReason, absl::StrCat("the query's ", Shown(part),
                                                " is not percent-encoded UTF-8 (\"%25\" is a %)"));
    }
    parameters.push_back({*std::move(name), *std::move(value)});
  }
  return parameters;
}

absl::Status ReadQuery(const RouteMatch& match, absl::string_view query, Message* message) {
  UQ_ASSIGN_OR_RETURN(const std::vector<Parameter> parameters, ParseQuery(query));
  Violations violations;
  std::set<const FieldDescriptor*> seen;
  for (const auto& [name, value] : parameters) {
    const std::string shown = PrintableText(name.substr(0, kMaxShownBytes));
    const FieldDescriptor* const field = FindField(message->GetDescriptor(), name);
    const std::string& body = match.route->body;
    const bool in_body = !body.empty() && (body == "*" || name == body ||
                                           absl::StartsWith(name, absl::StrCat(body, ".")));
    const bool plain = field != nullptr && !field->is_map() &&
                       (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE ||
                        IsOfProtobuf(*field->message_type()));
    if (field == nullptr) {
      violations.Add(kReason, shown,
                     absl::StrCat("unknown parameter ", shown, ": ",
                                  message->GetDescriptor()->name(), " has no such field"));
    } else if (in_body || match.variables.contains(name)) {
      violations.Add(
          kReason, shown,
          absl::StrCat(shown, " belongs into the ", in_body ? "body" : "path", ", not the query"));
    } else if (!plain) {
      violations.Add(kReason, shown, absl::StrCat(shown, " is no parameter: give its fields"));
    } else if (!field->is_repeated() && !seen.insert(field).second) {
      violations.Add(kReason, shown, absl::StrCat(shown, " is given twice"));
    } else {
      violations.Merge(SetField(name, value, message), "");
    }
  }
  return violations.status();
}

}  // namespace

absl::Status SetField(absl::string_view path, const std::string& value, Message* message) {
  const FieldDescriptor* field = nullptr;
  Message* const holder = HolderOf(path, message, &field);
  const Reflection* const reflection = holder->GetReflection();
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
    if (field->is_repeated()) {
      reflection->AddString(holder, field, value);
    } else {
      reflection->SetString(holder, field, value);
    }
    return absl::OkStatus();
  }
  const std::string json = AsJson(*field, value);
  const std::unique_ptr<Message> alone(holder->New());
  const std::string whole =
      absl::StrCat("{\"", field->name(), "\":", field->is_repeated() ? "[" : "", json,
                   field->is_repeated() ? "]" : "", "}");
  if (!nlohmann::json::accept(whole) ||
      !google::protobuf::util::JsonStringToMessage(whole, alone.get()).ok()) {
    return InvalidField(
        kReason, path,
        absl::StrCat(path, " ", Shown(value), " is no ",
                     field->type() == FieldDescriptor::TYPE_ENUM ? field->enum_type()->name()
                     : field->type() == FieldDescriptor::TYPE_MESSAGE
                         ? field->message_type()->name()
                         : field->type_name()));
  }
  holder->MergeFrom(*alone);
  return absl::OkStatus();
}

std::string GetField(absl::string_view path, const Message& message) {
  const Message* holder = &message;
  for (const absl::string_view part : absl::StrSplit(path, '.')) {
    const FieldDescriptor* const field = FindField(holder->GetDescriptor(), part);
    const Reflection* const reflection = holder->GetReflection();
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_MESSAGE:
        holder = &reflection->GetMessage(*holder, field);
        break;
      case FieldDescriptor::CPPTYPE_STRING:
        return reflection->GetString(*holder, field);
      case FieldDescriptor::CPPTYPE_BOOL:
        return reflection->GetBool(*holder, field) ? "true" : "";
      case FieldDescriptor::CPPTYPE_INT32:
        return absl::StrCat(reflection->GetInt32(*holder, field));
      case FieldDescriptor::CPPTYPE_INT64:
        return absl::StrCat(reflection->GetInt64(*holder, field));
      case FieldDescriptor::CPPTYPE_UINT64:
        return absl::StrCat(reflection->GetUInt64(*holder, field));
      default:
        return "";
    }
  }
  return "";
}

absl::StatusOr<std::unique_ptr<Message>> MakeRequestMessage(const RouteMatch& match,
                                                            absl::string_view query,
                                                            absl::string_view body) {
  const Route& route = *match.route;
  auto* const factory = google::protobuf::MessageFactory::generated_factory();
  std::unique_ptr<Message> message(factory->GetPrototype(route.method->input_type())->New());
  if (route.body.empty()) {
    if (!body.empty()) {
      return InvalidInput(kReason, absl::StrCat(route.verb, " ", route.text, " takes no body"));
    }
  } else if (route.body == "*") {
    UQ_RETURN_IF_ERROR(ReadBody(body, "", message.get()));
  } else {
    const FieldDescriptor* field = nullptr;
    Message* const holder = HolderOf(route.body, message.get(), &field);
    UQ_RETURN_IF_ERROR(
        ReadBody(body, route.body, holder->GetReflection()->MutableMessage(holder, field)));
  }
  for (const auto& [path, value] : match.variables) {
    const std::string there = GetField(path, *message);
    if (!there.empty() && there != "0" && there != value) {
      return InvalidField(kReason, path,
                          absl::StrCat(path, " is ", Shown(there), " in the body and ",
                                       Shown(value), " in the path; leave it out of the body"));
    }
    UQ_RETURN_IF_ERROR(SetField(path, value, message.get()));
  }
  UQ_RETURN_IF_ERROR(ReadQuery(match, query, message.get()));
  return message;
}

absl::StatusOr<std::string> MessageToJson(const Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  if (status.ok()) return json;
  return absl::InternalError(
      absl::StrCat("the answer has no JSON form: ", std::string(status.message())));
}

}  // namespace uniquanf::server
