#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/object_store/local_store.h"
#include "common/object_store/object_key.h"
#include "common/object_store/object_store.h"
#include "common/object_store/store_observer.h"
#include "common/object_store/store_schemes.h"

namespace uniquanf {
namespace {

std::shared_ptr<ObjectStore> Observed(std::shared_ptr<ObjectStore> store,
                                      const StoreOptions& options) {
  if (options.observer == nullptr) return store;
  return NewObservedStore(std::move(store), options.observer, &SystemClock());
}

absl::Status InvalidUri(absl::string_view uri, absl::string_view problem) {
  // User information may be a key and its secret.
  if (absl::StrContains(uri, "://") && absl::StrContains(uri, "@"))
    uri = "(URI with user information)";
  return InvalidInput("INVALID_URI", absl::StrCat("\"", uri, "\": ", problem));
}

}  // namespace

absl::StatusOr<std::shared_ptr<ObjectStore>> OpenObjectStore(absl::string_view uri,
                                                             const StoreOptions& options) {
  if (uri.empty()) {
    return InvalidUri(uri, absl::StrCat("empty; give ", StoreUriForms(), ", or a path"));
  }
  if (const StoreScheme* known = FindStoreScheme(uri)) {
    if (!absl::StartsWith(uri, known->root)) {
      return InvalidUri(uri, absl::StrCat("a ", known->prefix, " URI has the form ", known->form));
    }
    UQ_ASSIGN_OR_RETURN(std::shared_ptr<ObjectStore> store, known->open(uri, options));
    return Observed(std::move(store), options);
  }
  const size_t scheme = uri.find("://");
  if (scheme != absl::string_view::npos) {
    return InvalidUri(uri, absl::StrCat("the scheme ", uri.substr(0, scheme),
                                        ":// is not supported; use ", StoreUriForms()));
  }
  UQ_ASSIGN_OR_RETURN(std::shared_ptr<ObjectStore> store,
                      OpenLocalStore(uri, options.directory_mode));
  return Observed(std::move(store), options);
}

absl::StatusOr<ObjectLocation> OpenObjectLocation(absl::string_view uri,
                                                  const StoreOptions& options) {
  const size_t slash = uri.rfind('/');
  const absl::string_view name = slash == absl::string_view::npos ? uri : uri.substr(slash + 1);
  // A scheme and no path: "s3://bucket" has no object's name after its last '/'.
  const StoreScheme* const scheme = FindStoreScheme(uri);
  const size_t path = scheme == nullptr ? 0 : absl::string_view(scheme->prefix).size();
  const bool no_object = scheme != nullptr && slash < path;
  if (name.empty() || no_object) {
    return InvalidUri(uri, "must end in the name of an object (directory/name)");
  }
  absl::string_view directory = ".";
  if (slash != absl::string_view::npos) {
    // Keep the slash of a root: "/name" and "file:///name".
    const bool is_root = slash == path && uri[path] == '/';
    directory = uri.substr(0, slash + (is_root ? 1 : 0));
  }
  ObjectLocation location;
  UQ_RETURN_IF_ERROR(Annotate(ValidateObjectKey(name), uri));
  UQ_ASSIGN_OR_RETURN(location.store, OpenObjectStore(directory, options));
  location.key = std::string(name);
  return location;
}

}  // namespace uniquanf
