// HTTP/1.1 at an address of its own, of which nobody can keep others: connections are accepted and
// bounded here, each is served by a thread, and cpp-httplib reads heads and writes answers. Where
// the most connections are open, one that waits for its next request makes room.
//
// Thread safety: thread-safe; the handler runs on many threads at once. Lifetime: the destructor
// closes every connection and waits for the handlers that run.
// Errors: those of ListenOn.
#ifndef UNIQUANF_SERVER_HTTP_HTTP_LISTENER_H_
#define UNIQUANF_SERVER_HTTP_HTTP_LISTENER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rpc/server_tls.h"
#include "server/http/http_connection.h"
#include "server/http/http_counts.h"

namespace uniquanf::server {

struct HttpListenerOptions {
  std::string listen;  // host:port; port 0 takes a free one
  int max_connections = 256;
  int max_per_peer = 128;
  size_t max_head_bytes = 16 << 10;  // request line and headers
  HttpTimeouts timeouts;
  // Null: no TLS. Else the files that the certificates are taken from at each handshake; borrowed.
  TlsWatch* tls_files = nullptr;
  bool client_certificate_optional = false;
};

class HttpListener {
 public:
  // Fills in the response. May read the request's body from the connection; sets *close when it
  // left some of it there.
  using Handler = std::function<void(const httplib::Request&, HttpConnection*, httplib::Response*,
                                     bool* close)>;

  static absl::StatusOr<std::unique_ptr<HttpListener>> Start(const HttpListenerOptions& options,
                                                             Handler handler);
  ~HttpListener();

  int port() const;
  HttpCounts counts() const;
  // No more connections and no more requests; answers that are under way go on. Idempotent.
  void StopAccepting();

 private:
  struct Impl;
  explicit HttpListener(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_HTTP_HTTP_LISTENER_H_
