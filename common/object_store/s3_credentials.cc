#include "common/object_store/s3_credentials.h"

#include <algorithm>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/synchronization/mutex.h"
#include "common/base/environment.h"
#include "common/base/status.h"
#include "common/object_store/s3_credential_sources.h"

namespace uniquanf {
namespace {

constexpr absl::Duration kRefreshAhead = absl::Minutes(5);
constexpr absl::Duration kRefreshRetry = absl::Seconds(10);

class CachedCredentials : public CredentialsProvider {
 public:
  CachedCredentials(CredentialsSource source, const Clock& clock)
      : source_(std::move(source)), clock_(clock) {}

  absl::StatusOr<AwsCredentials> Get() override {
    absl::MutexLock lock(&mutex_);
    const absl::Time now = clock_.Now();
    if (has_value_ && now < refresh_at_) return value_;
    absl::StatusOr<AwsCredentials> fresh = source_();
    if (!fresh.ok()) {
      if (!has_value_ || now >= value_.expires) return fresh.status();
      refresh_at_ = std::min(now + kRefreshRetry, value_.expires);
      return value_;
    }
    value_ = *std::move(fresh);
    has_value_ = true;
    const absl::Duration ahead = std::min(kRefreshAhead, (value_.expires - now) / 4);
    refresh_at_ = value_.expires - ahead;
    return value_;
  }

  void Invalidate() override {
    absl::MutexLock lock(&mutex_);
    has_value_ = false;
  }

 private:
  const CredentialsSource source_;
  const Clock& clock_;
  absl::Mutex mutex_;
  bool has_value_ ABSL_GUARDED_BY(mutex_) = false;
  AwsCredentials value_ ABSL_GUARDED_BY(mutex_);
  absl::Time refresh_at_ ABSL_GUARDED_BY(mutex_);
};

absl::StatusOr<AwsCredentials> FromChain(const Environment& environment, HttpTransport* transport) {
  if (absl::EqualsIgnoreCase(environment("UNIQUANF_S3_ANONYMOUS"), "true") ||
      environment("UNIQUANF_S3_ANONYMOUS") == "1") {
    return AwsCredentials();
  }
  for (const auto& source :
       {CredentialsFromEnvironment, CredentialsFromWebIdentity, CredentialsFromProfile,
        CredentialsFromContainer, CredentialsFromInstanceMetadata}) {
    absl::StatusOr<AwsCredentials> found = source(environment, transport);
    if (!absl::IsNotFound(found.status())) return found;
  }
  return FailedPrecondition(
      "NO_CREDENTIALS",
      "no S3 credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or "
      "AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN, or UNIQUANF_S3_ANONYMOUS=true for a public "
      "bucket");
}

}  // namespace

Environment ProcessEnvironment() {
  return [](absl::string_view name) { return EnvironmentVariable(std::string(name).c_str()); };
}

std::shared_ptr<CredentialsProvider> NewCachedCredentials(CredentialsSource source,
                                                          const Clock& clock) {
  return std::make_shared<CachedCredentials>(std::move(source), clock);
}

std::shared_ptr<CredentialsProvider> NewDefaultCredentials(Environment environment,
                                                           std::shared_ptr<HttpTransport> transport,
                                                           const Clock& clock) {
  return NewCachedCredentials(
      [environment = std::move(environment), transport = std::move(transport)] {
        return FromChain(environment, transport.get());
      },
      clock);
}

std::string Redact(absl::string_view message, const AwsCredentials& credentials) {
  std::string redacted(message);
  // The longest first: a secret may contain the key.
  for (const std::string* part :
       {&credentials.session_token, &credentials.secret_access_key, &credentials.access_key_id}) {
    if (part->empty()) continue;
    absl::StrReplaceAll({{*part, "[redacted]"}, {UriEncode(*part, false), "[redacted]"}},
                        &redacted);
  }
  return redacted;
}

}  // namespace uniquanf
