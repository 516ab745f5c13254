// S3 requests with signing, credentials and retries: what happens between "I want this" and one or
// more HTTP attempts. Knows about requests, not about objects; s3_store.h is the object store.
//
// Thread safety: S3Client is thread-safe; calls block.
// Ownership: request bodies and sinks are the caller's and outlive the call.
// Errors of Send: kUnavailable (STORE_UNAVAILABLE) after bounded attempts, kCancelled
// (REQUEST_INTERRUPTED) soon after the client's options say that it is interrupted, credential
// errors (s3_credentials.h), kFailedPrecondition (S3_REDIRECT, S3_PROTOCOL, TLS_ERROR). Any other
// HTTP status is returned as a response; ErrorOf translates it. Messages are free of credentials.
#ifndef UNIQUANF_COMMON_OBJECT_STORE_S3_CLIENT_H_
#define UNIQUANF_COMMON_OBJECT_STORE_S3_CLIENT_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/stop_token.h"
#include "common/object_store/s3_config.h"
#include "common/object_store/s3_credentials.h"
#include "common/object_store/s3_http.h"

namespace uniquanf {

struct S3ClientOptions {
  // Attempts without progress before a request fails. Waits between them are uniform in
  // [0, min(max_backoff, initial_backoff * 2^n)] ("full jitter"), or the server's Retry-After,
  // at most max_backoff.
  int max_attempts = 8;
  absl::Duration initial_backoff = absl::Milliseconds(50);
  absl::Duration max_backoff = absl::Seconds(5);
  absl::Duration connect_timeout = absl::Seconds(10);
  absl::Duration stall_timeout = absl::Seconds(30);
  // Jitter; 0 draws a seed from the operating system.
  uint64_t jitter_seed = 0;
  std::function<void(absl::Duration)> sleep;  // absl::SleepFor when empty
  StopToken stop;                             // StoreOptions (object_store.h)
};

struct S3Request {
  std::string method = "GET";
  std::string key;  // in the bucket, not encoded; "" for the bucket itself
  NameValues query;
  NameValues headers;  // beside those for host, date, payload hash, range and credentials
  absl::string_view body;

  // A ranged GET: bytes [range_offset, range_offset + range_size_bytes) into `sink`. An attempt
  // that breaks off is continued where it ended, with If-Match on the entity tag, so that bytes of
  // two versions of an object are never mixed. With `if_match`, an entity tag, another version of
  // the object is answered by 412 from the first attempt on.
  char* sink = nullptr;
  uint64_t range_offset = 0;
  uint64_t range_size_bytes = 0;
  std::string if_match;

  uint64_t max_body_bytes = 64u << 20;
  absl::Duration stall_timeout = absl::ZeroDuration();  // zero: the client's
  int max_attempts = 0;                                 // 0: the client's
  bool ignore_interrupt = false;                        // for cleaning up after one
};

struct S3Response {
  HttpResponse http;
  std::string error_code;     // of an S3 error document: "NoSuchKey"
  std::string error_message;  // shortened, printable, redacted

  bool ok() const { return http.status >= 200 && http.status < 300 && error_code.empty(); }
};

class S3Client {
 public:
  S3Client(S3Config config, std::shared_ptr<CredentialsProvider> credentials,
           std::shared_ptr<HttpTransport> transport, const Clock& clock,
           S3ClientOptions options = {});

  absl::StatusOr<S3Response> Send(const S3Request& request);

  // The status for a response that is not ok(), in the terms of object_store.h.
  absl::Status ErrorOf(const S3Request& request, const S3Response& response) const;

  const S3Config& config() const { return config_; }
  bool interrupted() const { return options_.stop.StopRequested(); }

 private:
  struct Progress;
  enum class Verdict { kDone, kRetry };

  std::string Describe(const S3Request& request) const;
  HttpRequest Prepare(const S3Request& request, const Progress& progress,
                      const std::string& payload_sha256, const AwsCredentials& credentials) const;
  absl::StatusOr<Verdict> Judge(const S3Request& request, const absl::Status& transport,
                                const AwsCredentials& credentials, S3Response* response,
                                Progress* progress);
  absl::StatusOr<Verdict> JudgeRange(const S3Request& request, const absl::Status& transport,
                                     S3Response* response, Progress* progress) const;
  void Backoff(int num_failures, absl::string_view retry_after);
  void Wait(absl::Duration time) const;  // ends early when interrupted

  const S3Config config_;
  const std::shared_ptr<CredentialsProvider> credentials_;
  const std::shared_ptr<HttpTransport> transport_;
  const Clock& clock_;
  const S3ClientOptions options_;
  const uint64_t jitter_seed_;
  std::atomic<uint64_t> num_draws_{0};
  // Server's clock minus ours, learnt from a "RequestTimeTooSkewed" refusal.
  std::atomic<int64_t> skew_seconds_{0};
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_OBJECT_STORE_S3_CLIENT_H_
