#include "common/telemetry/telemetry_server.h"

#include <prometheus/text_serializer.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

PageResponse Answer(const TelemetryCheck& check, absl::string_view text) {
  const absl::Status status = check == nullptr ? absl::OkStatus() : check();
  if (status.ok()) return {200, absl::StrCat(text, "\n")};
  return {503, absl::StrCat(status.message(), "\n")};
}

bool HasParameter(absl::string_view query, absl::string_view parameter) {
  for (const absl::string_view part : absl::StrSplit(query, '&')) {
    if (part == parameter) return true;
  }
  return false;
}

PageResponse Handle(const TelemetryServerOptions& options, const PageRequest& request) {
  if (request.path == "/metrics") {
    if (options.before_scrape != nullptr) options.before_scrape();
    return {200, prometheus::TextSerializer().Serialize(options.registry->Collect())};
  }
  if (request.path == "/healthz") return Answer(options.healthy, "ok");
  if (request.path == "/readyz") {
    const bool standby_ok = HasParameter(request.query, "standby=ok");
    return Answer(standby_ok && options.ready_or_standby != nullptr ? options.ready_or_standby
                                                                    : options.ready,
                  "ready");
  }
  return {404, "there are /metrics, /healthz, /readyz and /readyz?standby=ok\n"};
}

}  // namespace

absl::StatusOr<std::unique_ptr<TelemetryServer>> TelemetryServer::Start(
    TelemetryServerOptions options) {
  HttpServerOptions http;
  http.listen = options.listen;
  UQ_ASSIGN_OR_RETURN(
      std::unique_ptr<HttpServer> server,
      HttpServer::Start(http, [options = std::move(options)](const PageRequest& request) {
        return Handle(options, request);
      }));
  return std::unique_ptr<TelemetryServer>(new TelemetryServer(std::move(server)));
}

}  // namespace uniquanf
