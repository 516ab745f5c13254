// AWS Signature Version 4 for request headers ("Authenticating Requests: Using the Authorization
// Header", Amazon S3 API Reference). Pure functions: no clock, no network, no state; thread-safe.
//
// Rules that implementations get wrong most often, and that the tests hold by AWS's vectors:
// - path: every byte except A-Z a-z 0-9 - . _ ~ and '/' is percent-encoded, exactly once. Paths are
//   not normalised ("a/../b" stays), which is S3's rule and not the other services'.
// - query: names and values are encoded ('/' too), then sorted by encoded name, then by encoded
//   value; a name without a value gets "=".
// - headers: names in lower case and sorted; values trimmed, runs of blanks folded to one;
//   repeated names joined with ',' in the order given.
#ifndef UNIQUANF_COMMON_OBJECT_STORE_SIGV4_H_
#define UNIQUANF_COMMON_OBJECT_STORE_SIGV4_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace uniquanf {

using NameValues = std::vector<std::pair<std::string, std::string>>;

// Secrets: never printed; see Redact in s3_credentials.h.
struct AwsCredentials {
  std::string access_key_id;
  std::string secret_access_key;
  std::string session_token;  // empty for long-lived keys
  absl::Time expires = absl::InfiniteFuture();

  // Requests are sent unsigned.
  bool anonymous() const { return access_key_id.empty(); }
};

// Payload hash of a request whose body is not covered by the signature.
inline constexpr char kUnsignedPayload[] = "UNSIGNED-PAYLOAD";
// SHA-256 of no bytes.
inline constexpr char kEmptySha256[] =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

struct SigV4Request {
  std::string method;
  std::string path;    // absolute, not encoded
  NameValues query;    // not encoded, any order
  NameValues headers;  // all of them are signed; "host" must be there
  // 64 hex digits, kUnsignedPayload, or one of the STREAMING-... constants.
  std::string payload_sha256;
};

struct SigV4Signature {
  std::string canonical_request;
  std::string string_to_sign;
  std::string authorization;  // value of the Authorization header
};

// Adds x-amz-date (and x-amz-security-token when there is one) to `request->headers` unless they
// are there, and signs. The caller sends `authorization` beside exactly these headers.
// REQUIRES: !credentials.anonymous().
SigV4Signature SignV4(const AwsCredentials& credentials, absl::string_view region,
                      absl::string_view service, absl::Time now, SigV4Request* request);

// Percent-encoding by the rule above. `keep_slash` for paths.
std::string UriEncode(absl::string_view text, bool keep_slash);

// The encoded, sorted query string without '?'. Also what goes on the wire.
std::string CanonicalQuery(const NameValues& query);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_OBJECT_STORE_SIGV4_H_
