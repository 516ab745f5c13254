// What an s3:// store needs to know, from its URI and the environment.
//
// Thread safety: plain values. Errors: kInvalidArgument (INVALID_URI, INVALID_S3_CONFIG); messages
// never repeat a URI that carries user information.
#ifndef UNIQUANF_COMMON_OBJECT_STORE_S3_CONFIG_H_
#define UNIQUANF_COMMON_OBJECT_STORE_S3_CONFIG_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/object_store/s3_credentials.h"

namespace uniquanf {

struct S3Config {
  std::string bucket;
  std::string prefix;  // "" or "a/b", without slashes at the ends
  std::string region = "us-east-1";
  std::string scheme = "https";  // http or https
  std::string authority;         // endpoint's host, with the port unless it is the scheme's default
  // Path style: https://host/bucket/key. Virtual-host style: https://bucket.host/key.
  bool path_style = false;
  std::string ca_file;

  // The Host header of a request, and the path (not encoded) of `key` ("" for the bucket).
  std::string Host() const;
  std::string Path(absl::string_view key) const;
  // "s3://bucket/prefix"
  std::string Uri() const;
};

// `uri`: s3://bucket or s3://bucket/prefix. Environment:
//   UNIQUANF_S3_ENDPOINT, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL  http(s)://host[:port]; AWS without
//   AWS_REGION, AWS_DEFAULT_REGION, or the profile's region      us-east-1 without
//   UNIQUANF_S3_ADDRESSING=path|virtual   path for custom endpoints and for bucket names with dots
//                                         (which wildcard certificates do not cover), else virtual
//   AWS_CA_BUNDLE                         authorities to trust instead of the system's
absl::StatusOr<S3Config> ParseS3Config(absl::string_view uri, const Environment& environment);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_OBJECT_STORE_S3_CONFIG_H_
