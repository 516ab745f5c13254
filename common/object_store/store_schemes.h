// The kinds of object stores, one row each: everything that asks what a URI's scheme means asks
// this table. A new store is its own files and its row. Thread safety: constants and
// free functions.
#ifndef UNIQUANF_COMMON_OBJECT_STORE_STORE_SCHEMES_H_
#define UNIQUANF_COMMON_OBJECT_STORE_STORE_SCHEMES_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/object_store/object_store.h"

namespace uniquanf {

class DataAccess;  // common/object_store/data_access.h
struct DataGrant;

struct StoreScheme {
  const char* prefix;  // "s3://"
  const char* root;    // what every URI with a place in it begins with: "file:///", "s3://"
  const char* form;    // for messages: "s3://bucket/prefix"
  bool is_remote;      // reads are worth a cache on this machine
  // `uri` begins with `root`.
  absl::StatusOr<std::shared_ptr<ObjectStore>> (*open)(absl::string_view uri,
                                                       const StoreOptions& options);
  // The same through `grant` of `access`; the uri is under it, or is the directory of the one file
  // that it is.
  absl::StatusOr<std::shared_ptr<ObjectStore>> (*open_granted)(absl::string_view uri,
                                                               const StoreOptions& options,
                                                               const DataGrant& grant,
                                                               const DataAccess& access);
  // What RemoveUnfinishedWrites promises.
  absl::StatusOr<int> (*sweep_unfinished)(absl::string_view uri, absl::Duration min_age);
};

absl::Span<const StoreScheme> StoreSchemes();
// The row of `uri`'s scheme; null for a plain path and for a scheme without a store.
const StoreScheme* FindStoreScheme(absl::string_view uri);
// Whether every program on every machine reads `uri` alike: it begins with a row's `root`.
bool IsCompleteStoreUri(absl::string_view uri);
// "file:///directory or s3://bucket/prefix".
std::string StoreUriForms();

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_OBJECT_STORE_STORE_SCHEMES_H_
