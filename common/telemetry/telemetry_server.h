// The HTTP pages for operators and probes: /metrics (Prometheus text), /healthz (the process lives
// and does not hang), /readyz (it can do its work now) and /readyz?standby=ok (it can, or stands by
// for the one that does).
//
// Thread safety: thread-safe; the callbacks run on the server's threads and must return quickly.
// Lifetime: borrows nothing but what the callbacks hold; the destructor waits for requests under
// way. Errors: kUnavailable (LISTEN_FAILED), kInvalidArgument (INVALID_LISTEN).
#ifndef UNIQUANF_COMMON_TELEMETRY_TELEMETRY_SERVER_H_
#define UNIQUANF_COMMON_TELEMETRY_TELEMETRY_SERVER_H_

#include <prometheus/registry.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/telemetry/http_server.h"

namespace uniquanf {

// OK: 200, else 503 with the message. Empty: always OK.
using TelemetryCheck = std::function<absl::Status()>;

struct TelemetryServerOptions {
  std::string listen;  // host:port; port 0 takes a free one
  std::shared_ptr<prometheus::Registry> registry;
  // Called before every scrape, to bring gauges up to date. May be empty.
  std::function<void()> before_scrape;
  TelemetryCheck healthy;
  TelemetryCheck ready;
  TelemetryCheck ready_or_standby;  // empty: as `ready`
};

class TelemetryServer {
 public:
  static absl::StatusOr<std::unique_ptr<TelemetryServer>> Start(TelemetryServerOptions options);
  int port() const { return server_->port(); }

 private:
  explicit TelemetryServer(std::unique_ptr<HttpServer> server) : server_(std::move(server)) {}
  const std::unique_ptr<HttpServer> server_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_TELEMETRY_TELEMETRY_SERVER_H_
