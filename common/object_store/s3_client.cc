#include "common/object_store/s3_client.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "common/base/backoff.h"
#include "common/base/digest.h"
#include "common/base/random.h"
#include "common/base/status.h"
#include "common/object_store/s3_xml.h"

namespace uniquanf {
namespace {

// An attempt that brought this much counts as success for the retry limit.
constexpr uint64_t kProgressBytes = 1 << 20;
constexpr absl::Duration kInterruptPoll = absl::Milliseconds(100);

bool IsOneOf(absl::string_view value, std::initializer_list<absl::string_view> values) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

// 501 ("not implemented") stays out: asking again does not implement it.
bool IsRetryable(int status, absl::string_view code) {
  return status == 408 || status == 429 || (status >= 500 && status != 501 && status != 507) ||
         IsOneOf(code, {"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout",
                        "Throttling", "ThrottlingException", "TooManyRequests", "OperationAborted",
                        "ConditionalRequestConflict", "BadDigest", "XAmzContentSHA256Mismatch",
                        "IncompleteBody"});
}

// Reads the error document, if the body is one. `redact` removes credentials.
void ReadError(const AwsCredentials& credentials, S3Response* response) {
  if (!absl::StrContains(response->http.body, "<Error>")) return;
  const absl::StatusOr<XmlElement> document = ParseXml(response->http.body);
  if (!document.ok() || document->name != "Error") return;
  const auto printable = [&credentials](absl::string_view text) {
    return absl::CHexEscape(Redact(text, credentials).substr(0, 300));
  };
  response->error_code = printable(document->Text("Code"));
  response->error_message = printable(document->Text("Message"));
  if (response->error_code.empty()) response->error_code = "Error";
}

struct ContentRange {
  uint64_t first = 0;
  uint64_t total = 0;
};

// "bytes 0-9/100", and "bytes */100" of a 416 (first = 0).
bool ParseContentRange(absl::string_view text, ContentRange* range) {
  if (!absl::ConsumePrefix(&text, "bytes ")) return false;
  const std::vector<absl::string_view> parts = absl::StrSplit(text, '/');
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[1], &range->total)) return false;
  if (parts[0] == "*") return true;
  const std::vector<absl::string_view> ends = absl::StrSplit(parts[0], '-');
  return ends.size() == 2 && absl::SimpleAtoi(ends[0], &range->first);
}

uint64_t SeedOf(const S3ClientOptions& options) {
  if (options.jitter_seed != 0) return options.jitter_seed;
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

}  // namespace

// What earlier attempts of one Send have left.
struct S3Client::Progress {
  uint64_t received = 0;  // bytes of the range that are in the sink
  std::string etag;       // of the object they came from
  std::string reason;     // why the last attempt failed
  bool credentials_refreshed = false;
  bool clock_corrected = false;
  bool restart_count = false;  // the attempt brought enough to start counting anew
};

S3Client::S3Client(S3Config config, std::shared_ptr<CredentialsProvider> credentials,
                   std::shared_ptr<HttpTransport> transport, const Clock& clock,
                   S3ClientOptions options)
    : config_(std::move(config)),
      credentials_(std::move(credentials)),
      transport_(std::move(transport)),
      clock_(clock),
      options_(std::move(options)),
      jitter_seed_(SeedOf(options_)) {}

std::string S3Client::Describe(const S3Request& request) const {
  return absl::StrCat(request.method, " s3://", config_.bucket, request.key.empty() ? "" : "/",
                      request.key);
}

HttpRequest S3Client::Prepare(const S3Request& request, const Progress& progress,
                              const std::string& payload_sha256,
                              const AwsCredentials& credentials) const {
  SigV4Request signing;
  signing.method = request.method;
  signing.path = config_.Path(request.key);
  signing.query = request.query;
  signing.payload_sha256 = payload_sha256;
  signing.headers = request.headers;
  signing.headers.emplace_back("host", config_.Host());
  if (request.sink != nullptr) {
    signing.headers.emplace_back(
        "range", absl::StrCat("bytes=", request.range_offset + progress.received, "-",
                              request.range_offset + request.range_size_bytes - 1));
    const std::string& etag = progress.received > 0 ? progress.etag : request.if_match;
    if (!etag.empty()) signing.headers.emplace_back("if-match", etag);
  }
  HttpRequest http;
  http.method = request.method;
  http.url = absl::StrCat(config_.scheme, "://", config_.Host(), UriEncode(signing.path, true),
                          signing.query.empty() ? "" : "?", CanonicalQuery(signing.query));
  if (credentials.anonymous()) {
    http.headers = std::move(signing.headers);
  } else {
    signing.headers.emplace_back("x-amz-content-sha256", payload_sha256);
    const absl::Time now = clock_.Now() + absl::Seconds(skew_seconds_.load());
    const SigV4Signature signature = SignV4(credentials, config_.region, "s3", now, &signing);
    http.headers = std::move(signing.headers);
    http.headers.emplace_back("authorization", signature.authorization);
  }
  http.body = request.body;
  if (request.sink != nullptr) {
    http.sink = request.sink + progress.received;
    http.sink_size_bytes = request.range_size_bytes - progress.received;
    http.max_body_bytes = 1 << 20;  // only an error document
  } else {
    http.max_body_bytes = request.max_body_bytes;
  }
  http.stall_timeout =
      request.stall_timeout > absl::ZeroDuration() ? request.stall_timeout : options_.stall_timeout;
  http.connect_timeout = std::min(options_.connect_timeout, http.stall_timeout);
  if (!request.ignore_interrupt) http.stop = options_.stop;
  return http;
}

// 206 and what may come instead of it. Sets progress->reason when it says kRetry.
absl::StatusOr<S3Client::Verdict> S3Client::JudgeRange(const S3Request& request,
                                                       const absl::Status& transport,
                                                       S3Response* response,
                                                       Progress* progress) const {
  const HttpResponse& http = response->http;
  if (http.status == 200) {
    return FailedPrecondition(
        "S3_PROTOCOL", absl::StrCat(Describe(request), ": the server ignores Range headers"));
  }
  if (http.status == 412 && progress->received > 0 && request.if_match.empty()) {
    progress->received = 0;
    progress->reason = "the object was replaced while it was read";
    return Verdict::kRetry;
  }
  if (http.status != 206) return Verdict::kDone;
  ContentRange range;
  const std::string etag(http.Header("etag"));
  if (!ParseContentRange(http.Header("content-range"), &range) ||
      range.first != request.range_offset + progress->received ||
      (progress->received > 0 && etag != progress->etag)) {
    progress->received = 0;
    progress->reason = "the server sent another range or version than was asked for";
    return Verdict::kRetry;
  }
  if (range.total < request.range_offset + request.range_size_bytes) return Verdict::kDone;
  if (http.sink_bytes == request.range_size_bytes - progress->received) {
    progress->received = request.range_size_bytes;
    return Verdict::kDone;
  }
  if (etag.empty()) {
    progress->received = 0;  // nothing to continue from safely
  } else {
    progress->received += http.sink_bytes;
    progress->etag = etag;
    progress->restart_count = http.sink_bytes >= kProgressBytes;
  }
  progress->reason =
      transport.ok() ? std::string("the response ended early") : std::string(transport.message());
  return Verdict::kRetry;
}

absl::StatusOr<S3Client::Verdict> S3Client::Judge(const S3Request& request,
                                                  const absl::Status& transport,
                                                  const AwsCredentials& credentials,
                                                  S3Response* response, Progress* progress) {
  HttpResponse& http = response->http;
  progress->restart_count = false;
  if (request.sink != nullptr && (http.status == 200 || http.status == 206)) {
    // A transport error within the body is judged there, together with what has arrived.
    return JudgeRange(request, transport, response, progress);
  }
  if (!transport.ok()) {
    if (!absl::IsUnavailable(transport)) return Annotate(transport, Describe(request));
    progress->reason = std::string(transport.message());
    return Verdict::kRetry;
  }
  if (http.status >= 300 && http.status < 400 && http.status != 304) {
    const absl::string_view region = http.Header("x-amz-bucket-region");
    const std::string fix =
        region.empty() ? std::string("check the endpoint and the bucket's name")
                       : absl::StrCat("set AWS_REGION=", absl::CHexEscape(region.substr(0, 40)));
    return FailedPrecondition(
        "S3_REDIRECT",
        absl::StrCat(Describe(request), ": the server answers with a redirect (HTTP ", http.status,
                     "), which is not followed; ", fix));
  }
  ReadError(credentials, response);
  // S3 may begin a "200 OK" before it knows how completing an upload ends.
  const bool late_error = http.status == 200 && !response->error_code.empty();
  if (http.status < 400 && !late_error) return Verdict::kDone;
  if (request.sink != nullptr && http.status == 412) {
    return JudgeRange(request, transport, response, progress);
  }
  const std::string& code = response->error_code;
  progress->reason = absl::StrCat("HTTP ", http.status, code.empty() ? "" : " ", code);
  if (IsOneOf(code, {"ExpiredToken", "TokenRefreshRequired"}) && !progress->credentials_refreshed) {
    progress->credentials_refreshed = true;
    credentials_->Invalidate();
    return Verdict::kRetry;
  }
  absl::Time server_time;
  if (code == "RequestTimeTooSkewed" && !progress->clock_corrected &&
      absl::ParseTime("%a, %d %b %Y %H:%M:%S GMT", http.Header("date"), &server_time, nullptr)) {
    progress->clock_corrected = true;
    skew_seconds_ = absl::ToInt64Seconds(server_time - clock_.Now());
    return Verdict::kRetry;
  }
  if (!IsRetryable(http.status, code)) return Verdict::kDone;
  return Verdict::kRetry;
}

void S3Client::Backoff(int num_failures, absl::string_view retry_after) {
  const absl::Duration limit =
      ExponentialBackoff(options_.initial_backoff, options_.max_backoff, num_failures);
  const uint32_t draw = PhiloxAt(jitter_seed_, 0, num_draws_.fetch_add(1)).v[0];
  absl::Duration wait = limit * (static_cast<double>(draw) / 4294967296.0);
  int64_t seconds = 0;
  if (absl::SimpleAtoi(retry_after, &seconds) && seconds > 0) {
    wait = std::max(wait, std::min(options_.max_backoff, absl::Seconds(seconds)));
  }
  Wait(wait);
}

void S3Client::Wait(absl::Duration time) const {
  if (options_.sleep) return options_.sleep(time);
  const absl::Time end = absl::Now() + time;
  while (!interrupted()) {
    const absl::Duration left = end - absl::Now();
    if (left <= absl::ZeroDuration()) return;
    absl::SleepFor(options_.stop.CanStop() ? std::min(left, kInterruptPoll) : left);
  }
}

absl::StatusOr<S3Response> S3Client::Send(const S3Request& request) {
  const std::string payload_sha256 = request.body.empty() ? kEmptySha256 : Sha256Hex(request.body);
  const int max_attempts = request.max_attempts > 0 ? request.max_attempts : options_.max_attempts;
  Progress progress;
  for (int num_failures = 0;;) {
    const absl::StatusOr<AwsCredentials> credentials = credentials_->Get();
    if (!credentials.ok()) return Annotate(credentials.status(), Describe(request));
    const HttpRequest http = Prepare(request, progress, payload_sha256, *credentials);
    S3Response response;
    const absl::Status transport = transport_->Perform(http, &response.http);
    const absl::StatusOr<Verdict> verdict =
        Judge(request, transport, *credentials, &response, &progress);
    if (!verdict.ok()) return verdict.status();
    if (*verdict == Verdict::kDone) return response;
    num_failures = progress.restart_count ? 1 : num_failures + 1;
    if (num_failures >= max_attempts) {
      return Unavailable("STORE_UNAVAILABLE", absl::StrCat(Describe(request), ": ", progress.reason,
                                                           " (", max_attempts, " attempts)"));
    }
    Backoff(num_failures, response.http.Header("retry-after"));
  }
}

absl::Status S3Client::ErrorOf(const S3Request& request, const S3Response& response) const {
  const int status = response.http.status;
  const std::string& code = response.error_code;
  const std::string message =
      absl::StrCat(Describe(request), ": HTTP ", status, code.empty() ? "" : " ", code,
                   response.error_message.empty() ? "" : ": ", response.error_message);
  using absl::StatusCode;
  if (code == "NoSuchBucket") {
    return FailedPrecondition("BUCKET_NOT_FOUND",
                              absl::StrCat(message, "; create the bucket or correct its name"));
  }
  if (status == 404) return NotFound("OBJECT_NOT_FOUND", message);
  if (status == 507 || IsOneOf(code, {"QuotaExceeded", "EntityTooLarge", "InsufficientStorage"})) {
    return MakeError(StatusCode::kResourceExhausted, "STORAGE_FULL", message);
  }
  if (status == 401 || status == 403) {
    return MakeError(StatusCode::kPermissionDenied, "PERMISSION_DENIED",
                     absl::StrCat(message, "; check the credentials and the bucket's policy"));
  }
  if (status == 412) return MakeError(StatusCode::kAlreadyExists, "OBJECT_EXISTS", message);
  return FailedPrecondition("S3_REFUSED", message);
}

}  // namespace uniquanf
