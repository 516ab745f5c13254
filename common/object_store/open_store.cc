#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/object_store/local_store.h"
#include "common/object_store/object_key.h"
#include "common/object_store/object_store.h"
#if __has_include("common/object_store/s3_store.h")
#include "common/object_store/s3_store.h"
#define UNIQUANF_HAVE_S3_STORE 1
#endif

namespace uniquanf {
namespace {

absl::Status InvalidUri(absl::string_view uri, absl::string_view problem) {
  // User information may be a key and its secret.
  if (absl::StrContains(uri, "://") && absl::StrContains(uri, "@"))
    uri = "(URI with user information)";
  return InvalidInput("INVALID_URI", absl::StrCat("\"", uri, "\": ", problem));
}

// URIs that carry no path of their own: "s3://bucket" has no object name after its last '/'.
constexpr absl::string_view kFile = "file://";
constexpr absl::string_view kS3 = "s3://";

}  // namespace

absl::StatusOr<std::shared_ptr<ObjectStore>> OpenObjectStore(absl::string_view uri,
                                                             const StoreOptions& options) {
  if (uri.empty())
    return InvalidUri(uri, "empty; give file:///directory, s3://bucket/prefix or a path");
  if (absl::StartsWith(uri, kFile)) {
    const absl::string_view path = uri.substr(kFile.size());
    if (path.empty() || path.front() != '/') {
      return InvalidUri(uri, "a file URI names an absolute path: file:///directory");
    }
    return OpenLocalStore(path);
  }
  if (absl::StartsWith(uri, kS3)) {
#ifdef UNIQUANF_HAVE_S3_STORE
    S3StoreOptions s3_options;
    s3_options.client.interrupted = options.interrupted;
    return OpenS3Store(uri, std::move(s3_options));
#else
    return absl::UnimplementedError(
        absl::StrCat("\"", uri, "\": this build has no S3 store; use file:///directory"));
#endif
  }
  const size_t scheme = uri.find("://");
  if (scheme != absl::string_view::npos) {
    return InvalidUri(uri, absl::StrCat("the scheme ", uri.substr(0, scheme),
                                        ":// is not supported; use file:// or s3://"));
  }
  return OpenLocalStore(uri);
}

absl::StatusOr<ObjectLocation> OpenObjectLocation(absl::string_view uri,
                                                  const StoreOptions& options) {
  const size_t slash = uri.rfind('/');
  const absl::string_view name = slash == absl::string_view::npos ? uri : uri.substr(slash + 1);
  const bool no_object = (absl::StartsWith(uri, kFile) && slash < kFile.size()) ||
                         (absl::StartsWith(uri, kS3) && slash < kS3.size());
  if (name.empty() || no_object) {
    return InvalidUri(uri, "must end in the name of an object (directory/name)");
  }
  absl::string_view directory = ".";
  if (slash != absl::string_view::npos) {
    // Keep the slash of a root: "/name" and "file:///name".
    const bool is_root = slash == 0 || (absl::StartsWith(uri, kFile) && slash == kFile.size());
    directory = uri.substr(0, slash + (is_root ? 1 : 0));
  }
  ObjectLocation location;
  UQ_RETURN_IF_ERROR(Annotate(ValidateObjectKey(name), uri));
  UQ_ASSIGN_OR_RETURN(location.store, OpenObjectStore(directory, options));
  location.key = std::string(name);
  return location;
}

}  // namespace uniquanf
