#include "server/http/http_service.h"

#include <arpa/inet.h>

#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/printable.h"
#include "common/base/status.h"
#include "common/base/version.h"
#include "common/rpc/status_proto.h"
#include "server/http/error_page.h"
#include "server/http/openapi.h"
#include "server/http/percent_encoding.h"
#include "server/http/request_message.h"

namespace uniquanf::server {
namespace {

// Of a path or a header in a message for people.
constexpr size_t kMaxShownBytes = 200;

std::string Shown(absl::string_view text) {
  return absl::StrCat("\"", PrintableText(text.substr(0, kMaxShownBytes)),
                      text.size() > kMaxShownBytes ? "...\"" : "\"");
}

// An error of HTTP itself, with a code of its own.
void Refuse(int http_code, absl::StatusCode code, absl::string_view reason, absl::string_view text,
            httplib::Response* response) {
  AnswerWithError(ToGrpcStatus(MakeError(code, reason, text)), response);
  response->status = http_code;
}

// "localhost" of "localhost:8080", "::1" of "[::1]:8080".
absl::string_view HostWithoutPort(absl::string_view host) {
  if (absl::StartsWith(host, "[")) return host.substr(1, host.find(']') - 1);
  return host.substr(0, host.rfind(':'));
}

bool IsOwnName(absl::string_view host) {
  const std::string name(HostWithoutPort(host));
  in6_addr address;
  return absl::EqualsIgnoreCase(name, "localhost") ||
         inet_pton(AF_INET, name.c_str(), &address) == 1 ||
         inet_pton(AF_INET6, name.c_str(), &address) == 1;
}

// A page of another origin may make a browser send requests with the user's certificate, or from
// the user's machine.
bool IsFromElsewhere(const httplib::Request& request, bool tls) {
  const std::string site = request.get_header_value("Sec-Fetch-Site");
  if (!site.empty() && site != "same-origin" && site != "none") return true;
  if (!request.has_header("Origin")) return false;
  const std::string own =
      absl::StrCat(tls ? "https://" : "http://", request.get_header_value("Host"));
  return !absl::EqualsIgnoreCase(request.get_header_value("Origin"), own);
}

// The size of a request's body; false: the request is refused, and the connection cannot go on.
bool BodySize(const httplib::Request& request, size_t max_bytes, size_t* size,
              httplib::Response* response) {
  *size = 0;
  if (request.has_header("Transfer-Encoding")) {
    Refuse(411, absl::StatusCode::kInvalidArgument, "LENGTH_REQUIRED",
           "send the body whole, with its Content-Length", response);
    return false;
  }
  const size_t count = request.get_header_value_count("Content-Length");
  if (count == 0) return true;
  uint64_t length = 0;
  const std::string text = request.get_header_value("Content-Length");
  if (count > 1 || text.empty() || !absl::c_all_of(text, absl::ascii_isdigit) ||
      !absl::SimpleAtoi(text, &length)) {
    Refuse(400, absl::StatusCode::kInvalidArgument, "INVALID_REQUEST",
           "Content-Length is not one number", response);
    return false;
  }
  if (length > max_bytes) {
    Refuse(413, absl::StatusCode::kResourceExhausted, "REQUEST_TOO_LARGE",
           absl::StrCat("the request's body has ", length, " bytes; at most ", max_bytes,
                        " are allowed"),
           response);
    return false;
  }
  *size = length;
  return true;
}

bool IsJson(const std::string& content_type) {
  const absl::string_view type =
      absl::StripAsciiWhitespace(absl::string_view(content_type).substr(0, content_type.find(';')));
  return absl::EqualsIgnoreCase(type, "application/json");
}

void AnswerWithJson(std::string json, httplib::Response* response) {
  response->status = 200;
  response->set_header("Cache-Control", "no-store");
  response->set_content(std::move(json), "application/json");
}

}  // namespace

HttpService::HttpService(HttpServiceOptions options, std::shared_ptr<grpc::Channel> channel,
                         RelayedCallers* callers, RouteTable routes)
    : options_(std::move(options)),
      routes_(std::move(routes)),
      openapi_(OpenApiDocument(routes_, kSoftwareVersion)),
      page_(PageFiles()),
      relay_(std::move(channel), callers),
      slots_(options_.max_streams) {}

HttpService::~HttpService() = default;

absl::StatusOr<std::unique_ptr<HttpService>> HttpService::Start(
    HttpServiceOptions options, std::shared_ptr<grpc::Channel> channel, RelayedCallers* callers,
    const std::vector<const google::protobuf::ServiceDescriptor*>& services) {
  UQ_ASSIGN_OR_RETURN(RouteTable routes, RouteTable::Make(services));
  std::unique_ptr<HttpService> service(
      new HttpService(std::move(options), std::move(channel), callers, std::move(routes)));
  HttpService* const raw = service.get();
  UQ_ASSIGN_OR_RETURN(
      service->listener_,
      HttpListener::Start(raw->options_.listener,
                          [raw](const httplib::Request& request, HttpConnection* connection,
                                httplib::Response* response, bool* close) {
                            raw->Handle(request, connection, response, close);
                          }));
  return service;
}

void HttpService::Handle(const httplib::Request& request, HttpConnection* connection,
                         httplib::Response* response, bool* close) {
  SetSecurityHeaders(response);
  size_t size = 0;
  std::string body;
  if (!BodySize(request, options_.max_body_bytes, &size, response)) {
    *close = true;
    return;
  }
  if (!connection->ReadBody(size, &body)) {
    *close = true;
    return Refuse(408, absl::StatusCode::kInvalidArgument, "REQUEST_TIMEOUT",
                  absl::StrCat("the request's ", size, " bytes did not arrive in time"), response);
  }
  const std::pair<absl::string_view, absl::string_view> target =
      absl::StrSplit(request.target, absl::MaxSplits('?', 1));
  const absl::string_view path = target.first;
  if (!absl::StartsWith(path, "/") || !PercentDecode(path, PlusIs::kPlus).has_value()) {
    return Refuse(400, absl::StatusCode::kInvalidArgument, "INVALID_REQUEST",
                  absl::StrCat("the path ", Shown(path),
                               " is not percent-encoded UTF-8 that begins with a /"),
                  response);
  }
  if (request.get_header_value_count("Host") != 1 ||
      (options_.local_names_only && !IsOwnName(request.get_header_value("Host")))) {
    return Refuse(421, absl::StatusCode::kPermissionDenied, "UNKNOWN_HOST",
                  absl::StrCat("the host ", Shown(request.get_header_value("Host")),
                               " is none of this server's; without identities it answers to "
                               "localhost and to addresses alone"),
                  response);
  }
  const bool reads = request.method == "GET" || request.method == "HEAD";
  if (absl::StartsWith(path, "/v1/")) {
    if (IsFromElsewhere(request, connection->has_tls())) {
      return Refuse(403, absl::StatusCode::kPermissionDenied, "CROSS_ORIGIN",
                    "requests of other origins' pages are refused", response);
    }
    return CallMethod(request, path, target.second, body, connection, response);
  }
  if (!reads) {
    response->set_header("Allow", "GET, HEAD");
    return Refuse(405, absl::StatusCode::kUnimplemented, "METHOD_NOT_ALLOWED",
                  absl::StrCat(Shown(path), " can only be read"), response);
  }
  if (path == "/openapi.json") return AnswerWithJson(openapi_, response);
  if (page_.Serve(std::string(path), request, response)) return;
  Refuse(404, absl::StatusCode::kNotFound, "NO_SUCH_PATH",
         absl::StrCat("there is no ", Shown(path), "; /openapi.json lists what there is"),
         response);
}

void HttpService::CallMethod(const httplib::Request& request, absl::string_view path,
                             absl::string_view query, const std::string& body,
                             HttpConnection* connection, httplib::Response* response) {
  const RouteMatch match = routes_.Find(request.method == "HEAD" ? "GET" : request.method, path);
  if (match.route == nullptr && !match.other_verbs.empty()) {
    response->set_header("Allow", absl::StrJoin(match.other_verbs, ", "));
    return Refuse(405, absl::StatusCode::kUnimplemented, "METHOD_NOT_ALLOWED",
                  absl::StrCat(Shown(path), " takes ", absl::StrJoin(match.other_verbs, ", "),
                               ", not ", Shown(request.method)),
                  response);
  }
  if (match.route == nullptr) {
    return Refuse(404, absl::StatusCode::kNotFound, "NO_SUCH_PATH",
                  absl::StrCat("there is no ", Shown(path), "; /openapi.json lists what there is"),
                  response);
  }
  if (!body.empty() && !IsJson(request.get_header_value("Content-Type"))) {
    return Refuse(415, absl::StatusCode::kInvalidArgument, "UNSUPPORTED_MEDIA_TYPE",
                  "send the body as Content-Type: application/json", response);
  }
  const Route& route = *match.route;
  absl::StatusOr<std::unique_ptr<google::protobuf::Message>> message =
      MakeRequestMessage(match, query, body);
  if (!message.ok()) return AnswerWithError(ToGrpcStatus(message.status()), response);
  RelayedCall call;
  call.method = route.method;
  call.request = message->get();
  call.caller = {connection->certificate(), connection->peer()};
  for (size_t i = 0; i < request.get_header_value_count("Authorization"); ++i) {
    call.authorization.push_back(request.get_header_value("Authorization", i));
    if (IsMetadataValue(call.authorization.back())) continue;
    return Refuse(401, absl::StatusCode::kUnauthenticated, "INVALID_TOKEN",
                  "the Authorization header holds other than printable ASCII", response);
  }
  call.traceparent = request.get_header_value("traceparent");
  if (!IsMetadataValue(call.traceparent)) call.traceparent.clear();
  if (route.method->server_streaming()) {
    const std::string cursor = request.get_header_value("Last-Event-ID");
    const bool resumes = !cursor.empty() && !route.cursor_request_field.empty();
    if (resumes) {
      const absl::Status set = SetField(route.cursor_request_field, cursor, message->get());
      if (!set.ok()) return AnswerWithError(ToGrpcStatus(Annotate(set, "Last-Event-ID")), response);
    }
    std::shared_ptr<void> slot = slots_.Take();
    if (slot == nullptr) {
      Refuse(503, absl::StatusCode::kUnavailable, "TOO_MANY_STREAMS",
             absl::StrCat(slots_.max(),
                          " streams are open, which is as many as there may be; ask "
                          "for the state every few seconds instead, or try later"),
             response);
      response->headers.erase("Retry-After");
      return response->set_header("Retry-After", "10");
    }
    return AnswerWithEvents(options_.events, route, resumes, relay_.Open(call), std::move(slot),
                            connection, response);
  }
  const std::unique_ptr<google::protobuf::Message> reply(
      google::protobuf::MessageFactory::generated_factory()
          ->GetPrototype(route.method->output_type())
          ->New());
  const grpc::Status status = relay_.Call(call, options_.call_timeout, reply.get());
  if (!status.ok()) return AnswerWithError(status, response);
  absl::StatusOr<std::string> json = MessageToJson(*reply);
  if (!json.ok()) return AnswerWithError(ToGrpcStatus(json.status()), response);
  AnswerWithJson(*std::move(json), response);
}

}  // namespace uniquanf::server
