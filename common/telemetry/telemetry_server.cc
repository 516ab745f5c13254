#include "common/telemetry/telemetry_server.h"

#include <civetweb.h>
#include <prometheus/text_serializer.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace uniquanf {

struct TelemetryServer::Impl {
  TelemetryServerOptions options;
  mg_context* context = nullptr;
};

namespace {

int Respond(mg_connection* connection, int code, const char* reason, const std::string& body) {
  mg_printf(connection,
            "HTTP/1.1 %d %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
            "Content-Length: %zu\r\nConnection: close\r\n\r\n",
            code, reason, body.size());
  mg_write(connection, body.data(), body.size());
  return code;
}

int HandleMetrics(mg_connection* connection, void* data) {
  const auto* options = static_cast<const TelemetryServerOptions*>(data);
  if (options->before_scrape != nullptr) options->before_scrape();
  return Respond(connection, 200, "OK",
                 prometheus::TextSerializer().Serialize(options->registry->Collect()));
}

int HandleHealth(mg_connection* connection, void*) {
  return Respond(connection, 200, "OK", "ok\n");
}

int HandleReady(mg_connection* connection, void* data) {
  const auto* options = static_cast<const TelemetryServerOptions*>(data);
  const absl::Status status = options->ready == nullptr ? absl::OkStatus() : options->ready();
  if (status.ok()) return Respond(connection, 200, "OK", "ready\n");
  return Respond(connection, 503, "Service Unavailable", absl::StrCat(status.message(), "\n"));
}

}  // namespace

TelemetryServer::TelemetryServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<TelemetryServer>> TelemetryServer::Start(
    TelemetryServerOptions options) {
  if (options.listen.rfind(':') == std::string::npos) {
    return InvalidInput("INVALID_LISTEN",
                        absl::StrCat("\"", options.listen, "\" is not of the form host:port"));
  }
  auto impl = std::make_unique<Impl>();
  impl->options = std::move(options);
  const char* settings[] = {
      "listening_ports", impl->options.listen.c_str(), "num_threads", "2",    "request_timeout_ms",
      "10000",           "enable_keep_alive",          "no",          nullptr};
  mg_callbacks callbacks{};
  callbacks.log_message = [](const mg_connection*, const char*) { return 1; };  // quiet
  mg_init_library(0);
  impl->context = mg_start(&callbacks, nullptr, settings);
  if (impl->context == nullptr) {
    return Unavailable(
        "LISTEN_FAILED",
        absl::StrCat("cannot serve metrics on ", impl->options.listen, "; is the address free?"));
  }
  mg_set_request_handler(impl->context, "/metrics$", HandleMetrics, &impl->options);
  mg_set_request_handler(impl->context, "/healthz$", HandleHealth, &impl->options);
  mg_set_request_handler(impl->context, "/readyz$", HandleReady, &impl->options);
  mg_server_port port{};
  const int num_ports = mg_get_server_ports(impl->context, 1, &port);
  std::unique_ptr<TelemetryServer> server(new TelemetryServer(std::move(impl)));
  if (num_ports > 0) server->port_ = port.port;
  return server;
}

TelemetryServer::~TelemetryServer() {
  if (impl_->context != nullptr) mg_stop(impl_->context);
}

}  // namespace uniquanf
