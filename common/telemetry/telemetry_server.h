// A small HTTP server for operators: /metrics (Prometheus text), /healthz (the process lives) and
// /readyz (it can do its work now).
//
// Thread safety: thread-safe; the callbacks run on the server's threads. Lifetime: borrows nothing
// but what the callbacks hold; the destructor waits for requests under way.
// Errors: kUnavailable (LISTEN_FAILED), kInvalidArgument (INVALID_LISTEN).
#ifndef UNIQUANF_COMMON_TELEMETRY_TELEMETRY_SERVER_H_
#define UNIQUANF_COMMON_TELEMETRY_TELEMETRY_SERVER_H_

#include <prometheus/registry.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace uniquanf {

struct TelemetryServerOptions {
  std::string listen;  // host:port; port 0 takes a free one
  std::shared_ptr<prometheus::Registry> registry;
  // Called before every scrape, to bring gauges up to date. May be empty.
  std::function<void()> before_scrape;
  // OK: 200, else 503 with the message. Empty: always OK.
  std::function<absl::Status()> ready;
};

class TelemetryServer {
 public:
  static absl::StatusOr<std::unique_ptr<TelemetryServer>> Start(TelemetryServerOptions options);
  ~TelemetryServer();
  int port() const { return port_; }

 private:
  struct Impl;
  explicit TelemetryServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
  int port_ = 0;
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_TELEMETRY_TELEMETRY_SERVER_H_
