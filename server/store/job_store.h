// Durable state of the scheduler: jobs, tasks, drain wishes and garbage, changed by atomic batches.
// A conformance suite (tests/unit/server/job_store_conformance.h) states what every store does.
//
// One server writes at a time. Open takes the store for this process and gives it an epoch; from
// then on every batch names the epoch and the sequence number it builds on, and a store that has
// moved on refuses it: a server that has been replaced cannot write.
//
// Thread safety: one thread uses a store at a time. Durability: when Commit returns OK the batch
// survives a crash of the process and of the machine.
// Errors: kAborted (STORE_FENCED): another server has taken the store, or the sequence is not the
// expected one; nothing was written. kUnavailable (STATE_UNAVAILABLE) and kResourceExhausted
// (STATE_FULL): the batch may or may not have been written; Open and Load tell. kUnavailable
// (NOT_ACTIVE), from Open: another server is active; ask again. kDataLoss (STATE_CORRUPT)
// and kFailedPrecondition (STATE_SCHEMA: written by a newer server; STATE_IN_USE: another server
// has it open) cannot be retried.
#ifndef UNIQUANF_SERVER_STORE_JOB_STORE_H_
#define UNIQUANF_SERVER_STORE_JOB_STORE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/core/state.h"
#include "server/core/types.h"

namespace uniquanf::server {

// Applied in this order: deletions, then puts. All or nothing.
struct WriteBatch {
  uint64_t epoch = 0;
  uint64_t expected_sequence = 0;      // of the store before; it is one more afterwards
  std::vector<uint64_t> deleted_jobs;  // with all their tasks
  std::vector<Job> jobs;
  std::vector<StoredTask> tasks;
  std::vector<std::string> deleted_drains;  // worker names
  std::vector<WorkerDrain> drains;
  std::vector<std::string> deleted_garbage;  // uids
  std::vector<std::string> garbage;
};

// A drain's second column, what the wish is for: "SESSION", or "*SESSION" for the worker's name.
std::string DrainColumn(const WorkerDrain& drain);
WorkerDrain ParseDrain(absl::string_view worker, absl::string_view column);

// What the edits refer to, as it is in `state` now.
WriteBatch MakeBatch(const State& state, const Edits& edits);

struct LoadedState {
  uint64_t sequence = 0;
  StoredState state;
  bool has_old_records = false;  // some are written as 0.1.0 did: see RewriteRecords
};

class JobStore {
 public:
  virtual ~JobStore() = default;

  // Takes the store and starts a new epoch, larger than every earlier one; returns it.
  virtual absl::StatusOr<uint64_t> Open() = 0;
  // REQUIRES: Open returned OK.
  virtual absl::StatusOr<LoadedState> Load() = 0;
  // REQUIRES: Open returned OK.
  virtual absl::Status Commit(const WriteBatch& batch) = 0;
  // OK when `epoch`, which Open returned, is still the store's. For a server that has nothing to
  // write: it learns here that it has been replaced. Errors: as Commit's.
  virtual absl::Status CheckActive(uint64_t epoch) { return absl::OkStatus(); }
  virtual std::string backend() const = 0;  // "sqlite", "postgresql"
  // Several servers may share the store: one is active, the others wait in Open's NOT_ACTIVE.
  virtual bool allows_standby() const { return false; }
};

// Writes every job and task of `loaded`, which `store` has just loaded in `epoch`, anew, in one
// commit; so that the next version need not read what an old one wrote.
absl::Status RewriteRecords(JobStore* store, uint64_t epoch, LoadedState* loaded);

// A store in one SQLite file, created if absent. A file is used by one server at a time (a lock
// file beside it, "<path>.lock", keeps a second one out).
std::unique_ptr<JobStore> NewSqliteStore(absl::string_view path);

// A store in a PostgreSQL database (14 or newer), in the first schema of the session's search path.
// `uri` is libpq's postgresql://...; not through a pooler that changes sessions between
// transactions: the session holds a lock. Errors: kInvalidArgument (INVALID_STATE_URI).
absl::StatusOr<std::unique_ptr<JobStore>> NewPostgresStore(absl::string_view uri);

// The store that `state` names: a file's path, or postgresql://... .
// Errors: kInvalidArgument (INVALID_STATE_URI).
absl::StatusOr<std::unique_ptr<JobStore>> NewJobStore(absl::string_view state);
// The same for logs: without user and password.
std::string DisplayState(absl::string_view state);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_STORE_JOB_STORE_H_
