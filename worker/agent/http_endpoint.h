// A small HTTP server for /metrics, /healthz and the like: GET only, one request a connection, one
// connection at a time, answers made on the spot.
//
// Thread safety: handlers run on the endpoint's own thread. Start once; the destructor stops it.
// Errors: kUnavailable (LISTEN_FAILED), kInvalidArgument (INVALID_FLAG) for a malformed address.
#ifndef UNIQUANF_WORKER_AGENT_HTTP_ENDPOINT_H_
#define UNIQUANF_WORKER_AGENT_HTTP_ENDPOINT_H_

#include <functional>
#include <map>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace uniquanf {

struct HttpResponse {
  int code = 200;
  std::string body;
  std::string content_type = "text/plain; charset=utf-8";
};

class HttpEndpoint {
 public:
  using Handler = std::function<HttpResponse()>;
  explicit HttpEndpoint(std::map<std::string, Handler> handlers);  // by path
  ~HttpEndpoint();
  HttpEndpoint(const HttpEndpoint&) = delete;
  HttpEndpoint& operator=(const HttpEndpoint&) = delete;

  // `address`: host:port, with port 0 for a free one; an empty host or "*" listens everywhere.
  absl::Status Start(absl::string_view address);
  int port() const { return port_; }

 private:
  void Loop();
  void Serve(int connection);

  const std::map<std::string, Handler> handlers_;
  int listener_ = -1;
  int stop_pipe_[2] = {-1, -1};
  int port_ = 0;
  std::thread thread_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_AGENT_HTTP_ENDPOINT_H_
