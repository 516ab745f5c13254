#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/object_store/caching_store.h"
#include "common/object_store/data_access.h"
#include "common/object_store/local_store.h"
#include "common/object_store/object_key.h"
#include "common/object_store/object_store.h"
#include "common/object_store/open_data.h"
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

// What opens a store: `grant`: through which; null: as the process may.
struct Opening {
  const StoreOptions* options;
  const DataAccess* access = nullptr;
  const DataGrant* grant = nullptr;
};

absl::StatusOr<Opening> OpeningOf(absl::string_view uri, const DataOptions& options) {
  Opening opening{&options.store, options.access.get(), nullptr};
  if (opening.access != nullptr) {
    UQ_ASSIGN_OR_RETURN(opening.grant, opening.access->Find(options.purpose, uri));
  }
  return opening;
}

absl::StatusOr<std::shared_ptr<ObjectStore>> Open(absl::string_view uri, const Opening& opening) {
  if (uri.empty()) {
    return InvalidUri(uri, absl::StrCat("empty; give ", StoreUriForms(), ", or a path"));
  }
  if (const StoreScheme* known = FindStoreScheme(uri)) {
    if (!absl::StartsWith(uri, known->root)) {
      return InvalidUri(uri, absl::StrCat("a ", known->prefix, " URI has the form ", known->form));
    }
    std::shared_ptr<ObjectStore> store;
    if (opening.grant == nullptr) {
      UQ_ASSIGN_OR_RETURN(store, known->open(uri, *opening.options));
    } else {
      UQ_ASSIGN_OR_RETURN(
          store, known->open_granted(uri, *opening.options, *opening.grant, *opening.access));
    }
    return Observed(std::move(store), *opening.options);
  }
  const size_t scheme = uri.find("://");
  if (scheme != absl::string_view::npos) {
    return InvalidUri(uri, absl::StrCat("the scheme ", uri.substr(0, scheme),
                                        ":// is not supported; use ", StoreUriForms()));
  }
  UQ_ASSIGN_OR_RETURN(std::shared_ptr<ObjectStore> store,
                      OpenLocalStore(uri, opening.options->directory_mode));
  return Observed(std::move(store), *opening.options);
}

absl::StatusOr<ObjectLocation> OpenLocation(absl::string_view uri, const Opening& opening) {
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
  UQ_ASSIGN_OR_RETURN(location.store, Open(directory, opening));
  location.key = std::string(name);
  return location;
}

}  // namespace

absl::StatusOr<std::shared_ptr<ObjectStore>> OpenObjectStore(absl::string_view uri,
                                                             const StoreOptions& options) {
  return Open(uri, Opening{&options});
}

absl::StatusOr<std::shared_ptr<ObjectStore>> OpenData(absl::string_view uri,
                                                      const DataOptions& options) {
  UQ_ASSIGN_OR_RETURN(const Opening opening, OpeningOf(uri, options));
  return Open(uri, opening);
}

absl::StatusOr<std::shared_ptr<ObjectStore>> OpenDataThrough(absl::string_view uri,
                                                             std::shared_ptr<ObjectCache> cache,
                                                             const DataOptions& options) {
  UQ_ASSIGN_OR_RETURN(std::shared_ptr<ObjectStore> store, OpenData(uri, options));
  const StoreScheme* const scheme = FindStoreScheme(uri);
  if (scheme == nullptr || !scheme->is_remote) return store;
  return NewCachingStore(std::move(store), std::move(cache), options.store.stop);
}

absl::StatusOr<ObjectLocation> OpenObjectLocation(absl::string_view uri,
                                                  const StoreOptions& options) {
  return OpenLocation(uri, Opening{&options});
}

absl::StatusOr<ObjectLocation> OpenDataLocation(absl::string_view uri, const DataOptions& options) {
  UQ_ASSIGN_OR_RETURN(const Opening opening, OpeningOf(uri, options));
  return OpenLocation(uri, opening);
}

}  // namespace uniquanf
