// Who wants to know how a store's operations go: for metrics.
//
// Thread safety: implementations are thread-safe. Lifetime: shared by the stores that tell it.
#ifndef UNIQUANF_COMMON_OBJECT_STORE_STORE_OBSERVER_H_
#define UNIQUANF_COMMON_OBJECT_STORE_STORE_OBSERVER_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/object_store/object_store.h"

namespace uniquanf {

enum class StoreOperation { kStat, kRead, kWrite, kList, kDelete };
inline constexpr int kNumStoreOperations = 5;
// "stat", "read", "write", "list", "delete".
const char* StoreOperationName(StoreOperation operation);

class StoreObserver {
 public:
  virtual ~StoreObserver() = default;
  // After every operation, retries within it included. A write is one from its writer's creation to
  // its commit, with the time spent inside the store; one that is given up is none.
  virtual void OnStoreOperation(StoreOperation operation, absl::Duration duration,
                                const absl::Status& status) = 0;
};

// `store`, whose operations `observer` is told of. Shares ownership of both; borrows the clock.
std::shared_ptr<ObjectStore> NewObservedStore(std::shared_ptr<ObjectStore> store,
                                              std::shared_ptr<StoreObserver> observer,
                                              const Clock* clock);

// The store did not do what it should have: what the caller asked about, such as an object that is
// not there or there already, is an answer, and so is the caller's own interruption.
bool IsStoreFailure(const absl::Status& status);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_OBJECT_STORE_STORE_OBSERVER_H_
