#include "common/object_store/s3_config.h"

#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"
#include "common/object_store/object_key.h"

namespace uniquanf {
namespace {

bool IsBucketName(absl::string_view bucket) {
  if (bucket.size() < 3 || bucket.size() > 63) return false;
  for (const char c : bucket) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '.' && c != '_') {
      return false;
    }
  }
  return bucket.front() != '.' && bucket.back() != '.' && !absl::StrContains(bucket, "..");
}

absl::Status SetEndpoint(absl::string_view variable, absl::string_view endpoint, S3Config* config) {
  absl::string_view rest = endpoint;
  if (absl::ConsumePrefix(&rest, "https://")) {
    config->scheme = "https";
  } else if (absl::ConsumePrefix(&rest, "http://")) {
    config->scheme = "http";
  } else {
    return InvalidInput(
        "INVALID_S3_CONFIG",
        absl::StrCat(variable, " must be http://host[:port] or https://host[:port]"));
  }
  absl::ConsumeSuffix(&rest, "/");
  if (rest.empty() || rest.find_first_of("/?#@ \t\r\n\\") != rest.npos) {
    return InvalidInput("INVALID_S3_CONFIG",
                        absl::StrCat(variable,
                                     " must be http://host[:port] or https://host[:port], without "
                                     "user, path or query"));
  }
  // The signature covers the Host header, and clients leave a default port out of it.
  absl::ConsumeSuffix(&rest, config->scheme == "https" ? ":443" : ":80");
  config->authority = std::string(rest);
  return absl::OkStatus();
}

}  // namespace

std::string S3Config::Host() const {
  return path_style ? authority : absl::StrCat(bucket, ".", authority);
}

std::string S3Config::Path(absl::string_view key) const {
  return path_style ? absl::StrCat("/", bucket, key.empty() ? "" : "/", key)
                    : absl::StrCat("/", key);
}

std::string S3Config::Uri() const {
  return absl::StrCat("s3://", bucket, prefix.empty() ? "" : "/", prefix);
}

absl::StatusOr<S3Config> ParseS3Config(absl::string_view uri, const Environment& environment) {
  absl::string_view rest = uri;
  if (!absl::ConsumePrefix(&rest, "s3://") || rest.find_first_of("?#@") != rest.npos) {
    return InvalidInput("INVALID_URI",
                        "an S3 URI is s3://bucket or s3://bucket/prefix, without user information "
                        "(credentials come from the environment), query or fragment");
  }
  while (absl::ConsumeSuffix(&rest, "/")) {
  }
  S3Config config;
  const size_t slash = rest.find('/');
  config.bucket = std::string(rest.substr(0, slash));
  if (slash != rest.npos) config.prefix = std::string(rest.substr(slash + 1));
  if (!IsBucketName(config.bucket)) {
    return InvalidInput("INVALID_URI",
                        absl::StrCat(uri,
                                     ": the bucket's name must have 3 to 63 letters, digits, "
                                     "'-', '_' and single dots"));
  }
  if (!config.prefix.empty() && !ValidateObjectKey(config.prefix).ok()) {
    return InvalidInput("INVALID_URI",
                        absl::StrCat(uri,
                                     ": the prefix must have segments of printable ASCII, "
                                     "none of them empty, \".\" or \"..\""));
  }

  using Profile = std::map<std::string, std::string>;
  UQ_ASSIGN_OR_RETURN(Profile profile, ReadAwsProfile(environment));
  for (const std::string& region :
       {profile["region"], environment("AWS_DEFAULT_REGION"), environment("AWS_REGION")}) {
    if (!region.empty()) config.region = region;
  }
  for (const char c : config.region) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '-') {
      return InvalidInput("INVALID_S3_CONFIG", "AWS_REGION must have letters, digits and '-' only");
    }
  }

  config.authority = absl::StrCat("s3.", config.region, ".amazonaws.com");
  bool custom = false;
  for (const char* variable : {"UNIQUANF_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL",
                               "endpoint_url of the AWS profile"}) {
    const std::string endpoint = absl::StartsWith(variable, "endpoint_url")
                                     ? profile["endpoint_url"]
                                     : environment(variable);
    if (endpoint.empty()) continue;
    UQ_RETURN_IF_ERROR(SetEndpoint(variable, endpoint, &config));
    custom = true;
    break;
  }

  const std::string addressing = environment("UNIQUANF_S3_ADDRESSING");
  if (addressing.empty()) {
    config.path_style = custom || absl::StrContains(config.bucket, ".");
  } else if (addressing == "path" || addressing == "virtual") {
    config.path_style = addressing == "path";
  } else {
    return InvalidInput("INVALID_S3_CONFIG", "UNIQUANF_S3_ADDRESSING must be path or virtual");
  }
  config.ca_file = environment("AWS_CA_BUNDLE");
  return config;
}

}  // namespace uniquanf
