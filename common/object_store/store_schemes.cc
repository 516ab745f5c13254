#include "common/object_store/store_schemes.h"

#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"
#include "common/object_store/data_access.h"
#include "common/object_store/local_store.h"
#include "common/object_store/s3_store.h"

namespace uniquanf {
namespace {

absl::StatusOr<std::shared_ptr<ObjectStore>> OpenFile(absl::string_view uri,
                                                      const StoreOptions& options) {
  return OpenLocalStore(absl::StripPrefix(uri, "file://"), options.directory_mode);
}

absl::StatusOr<std::shared_ptr<ObjectStore>> OpenGrantedFile(absl::string_view uri,
                                                             const StoreOptions& options,
                                                             const DataGrant& grant,
                                                             const DataAccess& access) {
  const absl::string_view path = absl::StripPrefix(uri, "file://");
  LocalConfinement confinement;
  if (LiesBelow(uri, grant.uri_prefix)) {
    confinement.directory = std::string(absl::StripPrefix(grant.uri_prefix, "file://"));
  } else {
    // The prefix is the one file that is wanted here, and says nothing of its neighbours.
    confinement.directory = std::string(path);
    confinement.follows_links = false;
  }
  for (const std::string& place : access.withheld()) {
    if (absl::StartsWith(place, "file://") && !LiesBelow(grant.uri_prefix, place)) {
      confinement.withheld.emplace_back(absl::StripPrefix(place, "file://"));
    }
  }
  return OpenConfinedLocalStore(path, std::move(confinement), options.directory_mode);
}

absl::StatusOr<int> SweepFile(absl::string_view uri, absl::Duration min_age) {
  return SweepTemporaries(absl::StripPrefix(uri, "file://"), min_age);
}

absl::StatusOr<std::shared_ptr<ObjectStore>> OpenS3(absl::string_view uri,
                                                    const StoreOptions& options) {
  S3StoreOptions s3_options;
  s3_options.client.stop = options.stop;
  return OpenS3Store(uri, std::move(s3_options));
}

absl::StatusOr<std::shared_ptr<ObjectStore>> OpenGrantedS3(absl::string_view uri,
                                                           const StoreOptions& options,
                                                           const DataGrant& grant,
                                                           const DataAccess& access) {
  S3StoreOptions s3_options;
  s3_options.client.stop = options.stop;
  UQ_ASSIGN_OR_RETURN(
      s3_options.environment,
      EnvironmentFor(grant.credentials, access.credentials_dir(), ProcessEnvironment()));
  return OpenS3Store(uri, std::move(s3_options));
}

absl::StatusOr<int> SweepS3(absl::string_view uri, absl::Duration min_age) {
  return AbortStaleS3Uploads(uri, min_age);
}

constexpr StoreScheme kSchemes[] = {
    {"file://", "file:///", "file:///directory", false, OpenFile, OpenGrantedFile, SweepFile},
    {"s3://", "s3://", "s3://bucket/prefix", true, OpenS3, OpenGrantedS3, SweepS3},
};

}  // namespace

absl::Span<const StoreScheme> StoreSchemes() { return kSchemes; }

const StoreScheme* FindStoreScheme(absl::string_view uri) {
  for (const StoreScheme& scheme : kSchemes) {
    if (absl::StartsWith(uri, scheme.prefix)) return &scheme;
  }
  return nullptr;
}

bool IsCompleteStoreUri(absl::string_view uri) {
  const StoreScheme* scheme = FindStoreScheme(uri);
  return scheme != nullptr && absl::StartsWith(uri, scheme->root);
}

std::string StoreUriForms() {
  std::vector<std::string> forms;
  for (const StoreScheme& scheme : kSchemes) forms.push_back(scheme.form);
  return absl::StrJoin(forms, " or ");
}

}  // namespace uniquanf
