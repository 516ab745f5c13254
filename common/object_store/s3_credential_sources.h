// The sources of the chain in s3_credentials.h, one function each.
//
// Thread safety: free functions. They read files and ask services each time they are called.
// Errors: kNotFound: this source is not configured, try the next. Otherwise as s3_credentials.h.
#ifndef UNIQUANF_COMMON_OBJECT_STORE_S3_CREDENTIAL_SOURCES_H_
#define UNIQUANF_COMMON_OBJECT_STORE_S3_CREDENTIAL_SOURCES_H_

#include "absl/status/statusor.h"
#include "common/object_store/s3_credentials.h"

namespace uniquanf {

absl::StatusOr<AwsCredentials> CredentialsFromEnvironment(const Environment& environment,
                                                          HttpTransport* transport);
// STS AssumeRoleWithWebIdentity; endpoint AWS_ENDPOINT_URL_STS or the region's.
absl::StatusOr<AwsCredentials> CredentialsFromWebIdentity(const Environment& environment,
                                                          HttpTransport* transport);
absl::StatusOr<AwsCredentials> CredentialsFromProfile(const Environment& environment,
                                                      HttpTransport* transport);
// ECS and EKS Pod Identity. A plain-http endpoint must be loopback or link-local.
absl::StatusOr<AwsCredentials> CredentialsFromContainer(const Environment& environment,
                                                        HttpTransport* transport);
// IMDSv2 at AWS_EC2_METADATA_SERVICE_ENDPOINT (default http://169.254.169.254).
absl::StatusOr<AwsCredentials> CredentialsFromInstanceMetadata(const Environment& environment,
                                                               HttpTransport* transport);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_OBJECT_STORE_S3_CREDENTIAL_SOURCES_H_
