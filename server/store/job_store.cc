#include "server/store/job_store.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"
#include "server/store/postgres_connection.h"

namespace uniquanf::server {

// No session begins so: converters.cc.
constexpr char kByName[] = "*";

std::string DrainColumn(const WorkerDrain& drain) {
  return absl::StrCat(drain.by_name ? kByName : "", drain.session);
}

WorkerDrain ParseDrain(absl::string_view worker, absl::string_view column) {
  WorkerDrain drain;
  drain.worker = std::string(worker);
  drain.by_name = absl::ConsumePrefix(&column, kByName);
  drain.session = std::string(column);
  return drain;
}

absl::Status RewriteRecords(JobStore* store, uint64_t epoch, LoadedState* loaded) {
  WriteBatch batch;
  batch.epoch = epoch;
  batch.expected_sequence = loaded->sequence;
  batch.jobs = loaded->state.jobs;
  batch.tasks = loaded->state.tasks;
  UQ_RETURN_IF_ERROR(store->Commit(batch));
  ++loaded->sequence;
  loaded->has_old_records = false;
  return absl::OkStatus();
}

WriteBatch MakeBatch(const State& state, const Edits& edits) {
  WriteBatch batch;
  batch.epoch = state.epoch;
  batch.deleted_jobs.assign(edits.deleted_jobs.begin(), edits.deleted_jobs.end());
  for (const uint64_t seq : edits.jobs) batch.jobs.push_back(state.jobs.at(seq).job);
  for (const TaskRef& ref : edits.tasks) {
    batch.tasks.push_back({ref, state.jobs.at(ref.job).tasks.at(ref.index)});
  }
  for (const std::string& worker : edits.drains) {
    const auto it = state.drains.find(worker);
    if (it == state.drains.end()) {
      batch.deleted_drains.push_back(worker);
    } else {
      batch.drains.push_back(it->second);
    }
  }
  batch.deleted_garbage.assign(edits.garbage_removed.begin(), edits.garbage_removed.end());
  batch.garbage.assign(edits.garbage_added.begin(), edits.garbage_added.end());
  return batch;
}

absl::StatusOr<std::unique_ptr<JobStore>> NewJobStore(absl::string_view state) {
  if (state.empty()) {
    return InvalidInput("INVALID_STATE_URI",
                        "the state is empty; give a file's path or "
                        "postgresql://user@host/database");
  }
  if (absl::StartsWith(state, "postgresql://") || absl::StartsWith(state, "postgres://")) {
    return NewPostgresStore(state);
  }
  if (absl::StrContains(state, "://")) {
    return InvalidInput(
        "INVALID_STATE_URI",
        absl::StrCat("state \"", state.substr(0, state.find("://")),
                     "://...\" is not supported; give the path of an SQLite file, or "
                     "postgresql://user@host/database"));
  }
  return NewSqliteStore(state);
}

std::string DisplayState(absl::string_view state) {
  if (!absl::StrContains(state, "://")) return std::string(state);
  return PgConnection::DisplayName(std::string(state)).value_or("(not valid)");
}

}  // namespace uniquanf::server
