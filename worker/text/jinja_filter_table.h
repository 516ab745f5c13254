// The filters by name, in two files. Thread safety: immutable tables.
#ifndef UNIQUANF_WORKER_TEXT_JINJA_FILTER_TABLE_H_
#define UNIQUANF_WORKER_TEXT_JINJA_FILTER_TABLE_H_

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "worker/text/jinja_functions.h"

namespace uniquanf::jinja {

using FilterTable =
    absl::flat_hash_map<absl::string_view,
                        absl::StatusOr<Value> (*)(const Value& value,
                                                  const CallArguments& arguments, Budget* budget)>;
const FilterTable& TextFilters();  // of texts and numbers
const FilterTable& ListFilters();  // of lists and dictionaries

}  // namespace uniquanf::jinja

#endif  // UNIQUANF_WORKER_TEXT_JINJA_FILTER_TABLE_H_
