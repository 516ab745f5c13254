// Where AWS credentials come from, and keeping them out of everything that people can read.
//
// Thread safety: providers are thread-safe; one caller at a time refreshes, others wait for it.
// Ownership: providers share what they are given by shared_ptr; `Clock` outlives them.
// Errors: kFailedPrecondition (NO_CREDENTIALS) when no source is configured, with what to set;
// kFailedPrecondition (INVALID_CREDENTIALS) for a source that is configured and unusable;
// kUnavailable (CREDENTIALS_UNAVAILABLE) when a metadata or token service does not answer.
// No message contains a key, a secret, a token or a line of a credentials file.
#ifndef UNIQUANF_COMMON_OBJECT_STORE_S3_CREDENTIALS_H_
#define UNIQUANF_COMMON_OBJECT_STORE_S3_CREDENTIALS_H_

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/base/clock.h"
#include "common/object_store/s3_http.h"
#include "common/object_store/sigv4.h"

namespace uniquanf {

// The value of an environment variable, "" when it is not set. Injected for tests.
using Environment = std::function<std::string(absl::string_view name)>;
Environment ProcessEnvironment();

class CredentialsProvider {
 public:
  virtual ~CredentialsProvider() = default;
  // Credentials that are valid for some minutes yet, or anonymous ones.
  virtual absl::StatusOr<AwsCredentials> Get() = 0;
  // Called when the server has refused credentials as expired: the next Get fetches fresh ones.
  virtual void Invalidate() = 0;
};

// Fetches credentials once. Empty optional-like result is expressed by kNotFound: "not configured".
using CredentialsSource = std::function<absl::StatusOr<AwsCredentials>()>;

// Caches what `source` returns and asks again 5 minutes before it expires (for short-lived ones: in
// the last quarter of their time). While a refresh fails and the old credentials are valid, they
// are used on, and the source is asked at most every 10 seconds.
std::shared_ptr<CredentialsProvider> NewCachedCredentials(CredentialsSource source,
                                                          const Clock& clock);

// The usual chain; the first source that is configured is used:
//   UNIQUANF_S3_ANONYMOUS=true                           unsigned requests
//   AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (, AWS_SESSION_TOKEN)
//   AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN            AssumeRoleWithWebIdentity at STS
//   profile AWS_PROFILE (default "default") of AWS_SHARED_CREDENTIALS_FILE (~/.aws/credentials)
//     and AWS_CONFIG_FILE (~/.aws/config): keys, or role_arn with web_identity_token_file
//   AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI  container endpoint
//   instance metadata (IMDSv2), unless AWS_EC2_METADATA_DISABLED=true
// Nothing is read or asked before the first Get.
std::shared_ptr<CredentialsProvider> NewDefaultCredentials(Environment environment,
                                                           std::shared_ptr<HttpTransport> transport,
                                                           const Clock& clock);

// Settings of the chosen profile from both files (the credentials file wins); empty when there is
// none. Also used for "region" and "endpoint_url".
absl::StatusOr<std::map<std::string, std::string>> ReadAwsProfile(const Environment& environment);

// `message` with every occurrence of a part of `credentials` replaced by "[redacted]".
std::string Redact(absl::string_view message, const AwsCredentials& credentials);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_OBJECT_STORE_S3_CREDENTIALS_H_
