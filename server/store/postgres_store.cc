// PostgreSQL: state that several servers share, of which one is active.
//
// Two guards keep a second writer out. A session-level advisory lock names the active server: it
// falls free the moment that server's session ends, and standbys ask for it in turn. The epoch in
// uniquanf_meta fences: every batch begins with an update that only the current epoch and the
// expected sequence can make, so that a server that has lost the lock without knowing cannot write.
// No clock of any server plays a part; the only time stored, taken_at, is the database's.
//
// A batch is one round trip: its statements are sent in a pipeline and commit together.
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "server/store/job_store.h"
#include "server/store/postgres_connection.h"
#include "server/store/record_codec.h"

namespace uniquanf::server {
namespace {

// First key of our advisory locks; the second is the meta table's oid, so that several states in
// one database (in different schemas) have different locks.
constexpr int32_t kLockClass = 0x55514E46;  // "UQNF"
// A statement carries about this many bytes at most.
constexpr size_t kMaxChunkBytes = 8 << 20;
constexpr absl::Duration kOwnLockPatience = absl::Seconds(1);

// Migration i brings the schema from version i to i + 1. Never edited once released; add another.
// Room is left on the pages so that an update stays on its page and touches no index.
constexpr const char* kMigrations[] = {
    "CREATE TABLE uniquanf_jobs (seq bigint PRIMARY KEY, record bytea NOT NULL)"
    " WITH (fillfactor = 70);"
    "CREATE TABLE uniquanf_tasks (job bigint NOT NULL, task integer NOT NULL,"
    " record bytea NOT NULL, PRIMARY KEY (job, task)) WITH (fillfactor = 50,"
    " autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);"
    "CREATE TABLE uniquanf_drains (worker text PRIMARY KEY, session text NOT NULL);"
    "CREATE TABLE uniquanf_garbage (uid text PRIMARY KEY);",
    // A task's record grows fivefold on its way from blocked to succeeded. Half a page of room was
    // too little for that: four updates in ten went to another page and into the index. Nor does
    // any plan depend on statistics of the table, or any read on its visibility map, so autovacuum
    // need not scan it for them beside the scheduler: dead rows alone call it.
    ("ALTER TABLE uniquanf_tasks SET (fillfactor = 20,"
     " autovacuum_analyze_threshold = 2000000000, autovacuum_vacuum_insert_threshold = -1);"),
    "",  // records hold the API's messages: a server of 0.1.0 must not take this for damage
};
constexpr int kSchemaVersion = sizeof(kMigrations) / sizeof(kMigrations[0]);

constexpr std::pair<const char*, const char*> kStatements[] = {
    // 1 / 0, "division by zero", unless this server still holds the state: that ends the batch
    // without waiting for an answer to the first statement.
    {"advance",
     "WITH advanced AS (UPDATE uniquanf_meta SET sequence = sequence + 1"
     " WHERE epoch = $1::bigint AND sequence = $2::bigint RETURNING 1)"
     " SELECT 1 / count(*) FROM advanced"},
    {"delete_jobs", "DELETE FROM uniquanf_jobs WHERE seq = ANY ($1::bigint[])"},
    {"delete_tasks", "DELETE FROM uniquanf_tasks WHERE job = ANY ($1::bigint[])"},
    {"put_jobs",
     "INSERT INTO uniquanf_jobs SELECT * FROM unnest($1::bigint[], $2::bytea[])"
     " ON CONFLICT (seq) DO UPDATE SET record = excluded.record"},
    {"put_tasks",
     "INSERT INTO uniquanf_tasks SELECT * FROM unnest($1::bigint[], $2::integer[], $3::bytea[])"
     " ON CONFLICT (job, task) DO UPDATE SET record = excluded.record"},
    {"delete_drains", "DELETE FROM uniquanf_drains WHERE worker = ANY ($1::text[])"},
    {"put_drains",
     "INSERT INTO uniquanf_drains SELECT * FROM unnest($1::text[], $2::text[])"
     " ON CONFLICT (worker) DO UPDATE SET session = excluded.session"},
    {"delete_garbage", "DELETE FROM uniquanf_garbage WHERE uid = ANY ($1::text[])"},
    {"put_garbage",
     "INSERT INTO uniquanf_garbage SELECT * FROM unnest($1::text[]) ON CONFLICT (uid) DO NOTHING"},
};
constexpr char kDivisionByZero[] = "22012";

std::string HostAndProcess() {
  char host[256] = "";
  if (gethostname(host, sizeof(host) - 1) != 0) return absl::StrCat("process ", getpid());
  return absl::StrCat(host, " (process ", getpid(), ")");
}

class PostgresStore : public JobStore {
 public:
  PostgresStore(std::string uri, std::string name) : uri_(std::move(uri)), name_(std::move(name)) {}

  ~PostgresStore() override { Close(); }

  std::string backend() const override { return "postgresql"; }
  bool allows_standby() const override { return true; }

  absl::StatusOr<uint64_t> Open() override {
    absl::StatusOr<uint64_t> epoch = TryOpen();
    if (!epoch.ok() && ErrorReason(epoch.status()) != "NOT_ACTIVE") connection_.reset();
    return epoch;
  }

  absl::StatusOr<LoadedState> Load() override {
    UQ_RETURN_IF_ERROR(CheckOpen());
    LoadedState loaded;
    UQ_ASSIGN_OR_RETURN(const int64_t sequence,
                        connection_->Scalar("SELECT sequence FROM uniquanf_meta"));
    loaded.sequence = static_cast<uint64_t>(sequence);
    // Nobody else has been able to write since Open, so the four tables belong together.
    UQ_RETURN_IF_ERROR(connection_->Query(
        "SELECT seq, record FROM uniquanf_jobs ORDER BY seq", {}, [&](const PgRow& row) {
          absl::StatusOr<Job> job = DecodeJob(row.Bytes(1), &loaded.has_old_records);
          if (!job.ok()) return Annotate(job.status(), name_);
          if (job->seq != static_cast<uint64_t>(row.Int(0))) {
            return MakeError(
                absl::StatusCode::kDataLoss, "STATE_CORRUPT",
                absl::StrCat("job ", row.Int(0), " in ", name_, " holds job ", job->seq));
          }
          loaded.state.jobs.push_back(*std::move(job));
          return absl::OkStatus();
        }));
    UQ_RETURN_IF_ERROR(connection_->Query(
        "SELECT job, task, record FROM uniquanf_tasks ORDER BY job, task", {},
        [&](const PgRow& row) {
          absl::StatusOr<Task> task = DecodeTask(row.Bytes(2), &loaded.has_old_records);
          if (!task.ok()) return Annotate(task.status(), name_);
          loaded.state.tasks.push_back(
              {{static_cast<uint64_t>(row.Int(0)), static_cast<int32_t>(row.Int(1))},
               *std::move(task)});
          return absl::OkStatus();
        }));
    UQ_RETURN_IF_ERROR(connection_->Query(
        "SELECT worker, session FROM uniquanf_drains ORDER BY worker", {}, [&](const PgRow& row) {
          loaded.state.drains.push_back(ParseDrain(row.Bytes(0), row.Bytes(1)));
          return absl::OkStatus();
        }));
    UQ_RETURN_IF_ERROR(connection_->Query("SELECT uid FROM uniquanf_garbage ORDER BY uid", {},
                                          [&](const PgRow& row) {
                                            loaded.state.garbage.emplace_back(row.Bytes(0));
                                            return absl::OkStatus();
                                          }));
    return loaded;
  }

  absl::Status Commit(const WriteBatch& batch) override {
    UQ_RETURN_IF_ERROR(CheckOpen());
    UQ_CRASH_POINT("store.before_begin");
    connection_->BeginPipeline();
    connection_->Send("advance", PgParams()
                                     .Add(static_cast<int64_t>(batch.epoch))
                                     .Add(static_cast<int64_t>(batch.expected_sequence)));
    SendWrites(batch);
    UQ_CRASH_POINT("store.before_commit");
    const absl::Status status = connection_->FinishPipeline();
    UQ_CRASH_POINT("store.after_commit");
    if (SqlState(status) == kDivisionByZero) {
      return Fenced(
          absl::StrCat("is not at sequence ", batch.expected_sequence, " of epoch ", batch.epoch));
    }
    if (status.ok()) return GuardSession();
    // Whether it was written is not known, or the session is of no more use: begin anew.
    connection_.reset();
    return status;
  }

  absl::Status CheckActive(uint64_t epoch) override {
    UQ_RETURN_IF_ERROR(CheckOpen());
    const absl::StatusOr<int64_t> stored = connection_->Scalar("SELECT epoch FROM uniquanf_meta");
    if (!stored.ok()) {
      connection_.reset();
      return stored.status();
    }
    if (static_cast<uint64_t>(*stored) == epoch) return GuardSession();
    return Fenced(absl::StrCat("is in epoch ", *stored, ", not ", epoch));
  }

 private:
  absl::Status CheckOpen() const {
    if (connection_ != nullptr) return absl::OkStatus();
    return Unavailable("STATE_UNAVAILABLE", absl::StrCat("no connection to state ", name_));
  }
  // From its first call after Load on, an active server asks something every second or two. One
  // that hangs loses its session, and with it the lock. Not earlier: a large state takes a while to
  // rebuild. A failure here shows in the next call.
  // 4 s: twice the longest silence of a healthy server, and, with the standby's poll and recovery,
  // a takeover within 5 s. A server that loses its session wrongly loses nothing but its turn: the
  // epoch fences it, and it stands by.
  absl::Status GuardSession() {
    if (!guarded_) {
      (void)connection_->Execute("SET idle_session_timeout = '4s'");
      guarded_ = true;
    }
    return absl::OkStatus();
  }
  absl::Status Fenced(absl::string_view what) const {
    return MakeError(absl::StatusCode::kAborted, "STORE_FENCED",
                     absl::StrCat("state ", name_, " ", what, ": another server has taken it"));
  }

  // Gives the lock back at once; the end of the session would do so a moment later.
  void Close() {
    if (connection_ != nullptr && active_) {
      (void)connection_->Execute("SELECT pg_advisory_unlock_all()");
    }
    connection_.reset();
    active_ = false;
  }

  absl::StatusOr<uint64_t> TryOpen() {
    // A session that works is kept: a standby only asks again for the lock.
    if (connection_ == nullptr) {
      UQ_ASSIGN_OR_RETURN(connection_, PgConnection::Connect(uri_));
      UQ_RETURN_IF_ERROR(CheckServer());
      UQ_RETURN_IF_ERROR(CreateMeta());
    }
    UQ_RETURN_IF_ERROR(CheckSchemaVersion().status());
    // The session that this server has just lost may hold the lock a moment longer.
    const absl::Time patience = absl::Now() + (active_ ? kOwnLockPatience : absl::ZeroDuration());
    active_ = false;
    while (true) {
      UQ_ASSIGN_OR_RETURN(const int64_t locked, connection_->Scalar(absl::StrCat(
                                                    "SELECT pg_try_advisory_lock(", kLockClass,
                                                    ", 'uniquanf_meta'::regclass::oid::int)")));
      if (locked != 0) break;
      if (absl::Now() >= patience) return NotActive();
      absl::SleepFor(absl::Milliseconds(50));
    }
    active_ = true;
    guarded_ = false;
    UQ_RETURN_IF_ERROR(connection_->Execute("SET idle_session_timeout = 0"));
    UQ_RETURN_IF_ERROR(Migrate());
    UQ_RETURN_IF_ERROR(connection_->Execute("DEALLOCATE ALL"));
    for (const auto& [name, sql] : kStatements) {
      UQ_RETURN_IF_ERROR(connection_->Prepare(name, sql));
    }
    UQ_ASSIGN_OR_RETURN(
        const int64_t epoch,
        connection_->Scalar("UPDATE uniquanf_meta SET epoch = epoch + 1, holder = $1::text,"
                            " taken_at = now() RETURNING epoch",
                            PgParams().AddText(HostAndProcess())));
    return static_cast<uint64_t>(epoch);
  }

  absl::Status NotActive() {
    std::string holder;
    UQ_RETURN_IF_ERROR(
        connection_->Query("SELECT holder FROM uniquanf_meta", {}, [&](const PgRow& row) {
          holder = std::string(row.Bytes(0));
          return absl::OkStatus();
        }));
    return Unavailable("NOT_ACTIVE",
                       absl::StrCat("state ", name_, " is held by the active server",
                                    holder.empty() ? "" : " on ", holder, "; this one stands by"));
  }

  absl::Status CheckServer() {
    if (connection_->server_version() < 140000) {
      return FailedPrecondition("STATE_SCHEMA", absl::StrCat("state ", name_, " is on PostgreSQL ",
                                                             connection_->server_version() / 10000,
                                                             "; version 14 or newer is needed"));
    }
    return absl::OkStatus();
  }

  // The one table that standbys read too. Under a lock of its own, because two first servers may
  // start at once.
  absl::Status CreateMeta() {
    UQ_ASSIGN_OR_RETURN(const int64_t exists,
                        connection_->Scalar("SELECT to_regclass('uniquanf_meta') IS NOT NULL"));
    if (exists != 0) return absl::OkStatus();
    const absl::Status status = connection_->Execute(absl::StrCat(
        "BEGIN; SELECT pg_advisory_xact_lock(", kLockClass,
        ", 0);"
        "CREATE TABLE IF NOT EXISTS uniquanf_meta (only_row boolean PRIMARY KEY DEFAULT true"
        " CHECK (only_row), schema_version integer NOT NULL, epoch bigint NOT NULL,"
        " sequence bigint NOT NULL, holder text NOT NULL, taken_at timestamptz NOT NULL)"
        " WITH (fillfactor = 10, autovacuum_vacuum_cost_delay = 0);"
        "INSERT INTO uniquanf_meta VALUES (true, 0, 0, 0, '', now()) ON CONFLICT DO NOTHING;"
        "COMMIT"));
    if (!status.ok()) (void)connection_->Execute("ROLLBACK");
    return status;
  }

  absl::StatusOr<int64_t> CheckSchemaVersion() {
    UQ_ASSIGN_OR_RETURN(const int64_t version,
                        connection_->Scalar("SELECT schema_version FROM uniquanf_meta"));
    if (version > kSchemaVersion) {
      return FailedPrecondition(
          "STATE_SCHEMA",
          absl::StrCat("state ", name_, " has schema version ", version, ", this server knows ",
                       kSchemaVersion, "; run the newer server that wrote it"));
    }
    return version;
  }

  absl::Status Migrate() {
    UQ_ASSIGN_OR_RETURN(const int64_t version, CheckSchemaVersion());
    for (int64_t i = version; i < kSchemaVersion; ++i) {
      const absl::Status status = connection_->Execute(
          absl::StrCat("BEGIN;", kMigrations[i],
                       "UPDATE uniquanf_meta SET schema_version = ", i + 1, ";COMMIT"));
      if (!status.ok()) {
        (void)connection_->Execute("ROLLBACK");
        return Annotate(status, absl::StrCat("migration to schema version ", i + 1));
      }
    }
    return absl::OkStatus();
  }

  void SendWrites(const WriteBatch& batch) {
    if (!batch.deleted_jobs.empty()) {
      const std::vector<int64_t> seqs(batch.deleted_jobs.begin(), batch.deleted_jobs.end());
      connection_->Send("delete_jobs", PgParams().AddArray(seqs));
      connection_->Send("delete_tasks", PgParams().AddArray(seqs));
    }
    for (size_t i = 0; i < batch.jobs.size();) {
      std::vector<int64_t> seqs;
      std::vector<std::string> records;
      for (size_t bytes = 0; i < batch.jobs.size() && bytes < kMaxChunkBytes; ++i) {
        seqs.push_back(static_cast<int64_t>(batch.jobs[i].seq));
        records.push_back(EncodeJob(batch.jobs[i]));
        bytes += records.back().size();
      }
      connection_->Send("put_jobs", PgParams().AddArray(seqs).AddBytes(records));
    }
    for (size_t i = 0; i < batch.tasks.size();) {
      std::vector<int64_t> jobs;
      std::vector<int32_t> tasks;
      std::vector<std::string> records;
      for (size_t bytes = 0; i < batch.tasks.size() && bytes < kMaxChunkBytes; ++i) {
        jobs.push_back(static_cast<int64_t>(batch.tasks[i].ref.job));
        tasks.push_back(batch.tasks[i].ref.index);
        records.push_back(EncodeTask(batch.tasks[i].task));
        bytes += records.back().size();
      }
      connection_->Send("put_tasks", PgParams().AddArray(jobs).AddArray(tasks).AddBytes(records));
    }
    if (!batch.deleted_drains.empty()) {
      connection_->Send("delete_drains", PgParams().AddTexts(batch.deleted_drains));
    }
    if (!batch.drains.empty()) {
      std::vector<std::string> workers, sessions;
      for (const WorkerDrain& drain : batch.drains) {
        workers.push_back(drain.worker);
        sessions.push_back(DrainColumn(drain));
      }
      connection_->Send("put_drains", PgParams().AddTexts(workers).AddTexts(sessions));
    }
    if (!batch.deleted_garbage.empty()) {
      connection_->Send("delete_garbage", PgParams().AddTexts(batch.deleted_garbage));
    }
    if (!batch.garbage.empty()) {
      connection_->Send("put_garbage", PgParams().AddTexts(batch.garbage));
    }
  }

  const std::string uri_;   // may hold a password
  const std::string name_;  // does not
  std::unique_ptr<PgConnection> connection_;
  bool active_ = false;   // the session may hold the lock
  bool guarded_ = false;  // the session ends when it is idle for long
};

}  // namespace

absl::StatusOr<std::unique_ptr<JobStore>> NewPostgresStore(absl::string_view uri) {
  UQ_ASSIGN_OR_RETURN(std::string name, PgConnection::DisplayName(std::string(uri)));
  return std::make_unique<PostgresStore>(std::string(uri), std::move(name));
}

}  // namespace uniquanf::server
