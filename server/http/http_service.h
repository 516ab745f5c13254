// Everything that the HTTP address serves: the methods of the API (README.md), /openapi.json and
// the page.
//
// Thread safety: thread-safe. Lifetime: the destructor ends what is under way; it comes before the
// end of the channel's server. Errors: those of HttpListener and RouteTable.
#ifndef UNIQUANF_SERVER_HTTP_HTTP_SERVICE_H_
#define UNIQUANF_SERVER_HTTP_HTTP_SERVICE_H_

#include <google/protobuf/descriptor.h>
#include <grpcpp/channel.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rpc/channel.h"
#include "server/http/event_stream.h"
#include "server/http/grpc_relay.h"
#include "server/http/http_listener.h"
#include "server/http/route_table.h"
#include "server/http/static_page.h"

namespace uniquanf::server {

struct HttpServiceOptions {
  HttpListenerOptions listener;
  EventStreamOptions events;
  int max_streams = 50;
  size_t max_body_bytes = kMaxRequestBytes;
  absl::Duration call_timeout = absl::Seconds(60);
  // Callers are not asked who they are, so a browser's caller may be any page that it shows: only
  // this machine's own names are then answered (DNS rebinding).
  bool local_names_only = false;
};

class HttpService {
 public:
  // `services`: what is served, over `channel`.
  static absl::StatusOr<std::unique_ptr<HttpService>> Start(
      HttpServiceOptions options, std::shared_ptr<grpc::Channel> channel, RelayedCallers* callers,
      const std::vector<const google::protobuf::ServiceDescriptor*>& services);
  ~HttpService();

  int port() const { return listener_->port(); }
  HttpCounts counts() const { return listener_->counts(); }
  int num_streams() const { return slots_.num_taken(); }
  void StopAccepting() { listener_->StopAccepting(); }

 private:
  HttpService(HttpServiceOptions options, std::shared_ptr<grpc::Channel> channel,
              RelayedCallers* callers, RouteTable routes);
  void Handle(const httplib::Request& request, HttpConnection* connection,
              httplib::Response* response, bool* close);
  void CallMethod(const httplib::Request& request, absl::string_view path, absl::string_view query,
                  const std::string& body, HttpConnection* connection, httplib::Response* response);

  const HttpServiceOptions options_;
  const RouteTable routes_;
  const std::string openapi_;
  const StaticPage page_;
  GrpcRelay relay_;
  StreamSlots slots_;
  std::unique_ptr<HttpListener> listener_;  // last: its threads use all of these
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_HTTP_HTTP_SERVICE_H_
