// A small HTTP/1.1 server for GET and HEAD that nobody can keep from answering: one thread accepts,
// reads and writes without ever blocking, a request has two seconds to arrive whole, and where the
// most connections are open the oldest that has not sent its request makes room. Written for probes
// (a kubelet that gets no answer restarts the program), which a thread for each connection starves.
//
// Thread safety: thread-safe; the handler runs on several threads at once. Lifetime: the destructor
// waits for handlers that run and closes every connection.
// Errors: those of ListenOn.
#ifndef UNIQUANF_COMMON_TELEMETRY_HTTP_SERVER_H_
#define UNIQUANF_COMMON_TELEMETRY_HTTP_SERVER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace uniquanf {

struct PageRequest {
  std::string path;   // "/readyz"
  std::string query;  // after '?', as sent
};

struct PageResponse {
  int code = 200;
  std::string body;  // text/plain
};

struct HttpServerOptions {
  std::string listen;  // host:port; port 0 takes a free one
  int max_connections = 64;
  int num_threads = 8;
  size_t max_request_bytes = 8192;
  absl::Duration request_timeout = absl::Seconds(2);
  absl::Duration response_timeout = absl::Seconds(10);
};

class HttpServer {
 public:
  using Handler = std::function<PageResponse(const PageRequest&)>;
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const HttpServerOptions& options,
                                                           Handler handler);
  ~HttpServer();
  int port() const;

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_TELEMETRY_HTTP_SERVER_H_
