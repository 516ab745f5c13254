// A store that passes everything on to another one, counts the operations, and fails the n-th with
// a given error: every place where storage can fail is reached by counting n up.
// Thread safety: thread-safe, as ObjectStore.
#ifndef UNIQUANF_TESTS_SUPPORT_FAULTY_STORE_H_
#define UNIQUANF_TESTS_SUPPORT_FAULTY_STORE_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "common/object_store/object_store.h"

namespace uniquanf {

// Asked before each operation ("stat", "read", "open", "append", "commit", "list", "delete") on
// `key`; what is not OK is returned instead of doing it.
using FaultHook = std::function<absl::Status(absl::string_view operation, absl::string_view key)>;

std::shared_ptr<ObjectStore> NewFaultyStore(std::shared_ptr<ObjectStore> store, FaultHook hook);

// Fails the `nth` operation (from 1) with `error` and lets all others through; *num_operations,
// where given, counts them (borrowed; not thread-safe to read while the store is in use).
FaultHook FailNth(int nth, absl::Status error, int* num_operations = nullptr);

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_SUPPORT_FAULTY_STORE_H_
