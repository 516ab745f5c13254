#include "common/rpc/health_check.h"

#include <curl/curl.h>
#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstdio>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr absl::Duration kFlagTimeout = absl::Seconds(5);

// HealthCheckResponse has one field: 1, an enum, of which 1 means SERVING. The message is that
// small and its file is not packaged, so it is read by hand.
bool IsServing(const grpc::ByteBuffer& reply) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!reply.Dump(&slices).ok()) return false;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes == absl::string_view("\x08\x01", 2);
}

size_t Discard(char*, size_t size, size_t count, void*) { return size * count; }

absl::Status ProbeUrl(const std::string& url, absl::Duration timeout) {
  CURL* const curl = curl_easy_init();
  if (curl == nullptr) return absl::InternalError("no memory for a request");
  char error[CURL_ERROR_SIZE] = "";
  curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, static_cast<long>(absl::ToInt64Milliseconds(timeout)));
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_PROXY, "");
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, Discard);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, error);
  const CURLcode code = curl_easy_perform(curl);
  long status = 0;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  curl_easy_cleanup(curl);
  if (code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL) {
    return InvalidInput("INVALID_TARGET", absl::StrCat("\"", url, "\" is not a URL"));
  }
  if (code != CURLE_OK) {
    return Unavailable("SERVER_UNREACHABLE", absl::StrCat(url, ": ", error));
  }
  if (status == 200) return absl::OkStatus();
  return FailedPrecondition("NOT_SERVING", absl::StrCat(url, " answers ", status));
}

}  // namespace

absl::Status CheckHealth(const std::shared_ptr<grpc::Channel>& channel, absl::Duration timeout) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  context.set_wait_for_ready(true);
  const grpc::ByteBuffer request(nullptr, 0);  // the default service: an empty message
  grpc::ByteBuffer reply;
  grpc::Status status;
  absl::Notification done;
  stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", grpc::StubOptions(), &request, &reply,
                 [&](grpc::Status result) {
                   status = std::move(result);
                   done.Notify();
                 });
  done.WaitForNotification();
  if (!status.ok()) {
    return Unavailable("SERVER_UNREACHABLE",
                       absl::StrCat("no answer to a health check within ",
                                    absl::FormatDuration(timeout), ": ", status.error_message()));
  }
  if (IsServing(reply)) return absl::OkStatus();
  return FailedPrecondition("NOT_SERVING", "the server answers that it does not serve now");
}

absl::Status ProbeHealth(absl::string_view target, const ClientTlsOptions& tls,
                         absl::Duration timeout) {
  if (absl::StrContains(target, "://") && !absl::StartsWith(target, "dns://")) {
    return ProbeUrl(std::string(target), timeout);
  }
  ChannelOptions options;
  options.tls = tls;
  UQ_ASSIGN_OR_RETURN(const auto channel, MakeChannel(target, options));
  return CheckHealth(channel, timeout);
}

int RunHealthFlag(const std::string& program, const std::string& target,
                  const ClientTlsOptions& tls) {
  const absl::Status status = ProbeHealth(target, tls, kFlagTimeout);
  if (status.ok()) {
    std::printf("healthy\n");
    return 0;
  }
  std::fprintf(stderr, "%s: --health=%s: %s\n", program.c_str(), target.c_str(),
               std::string(status.message()).c_str());
  return absl::IsInvalidArgument(status) ? 2 : 1;
}

}  // namespace uniquanf
