// SQLite: one connection that writes and checkpoints, WAL, synchronous=FULL, BEGIN IMMEDIATE.
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>

#include "absl/strings/str_cat.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "server/store/job_store.h"
#include "server/store/record_codec.h"

namespace uniquanf::server {
namespace {

// Migration i brings a file of schema version i to i + 1. Never edited once released; add another.
constexpr const char* kMigrations[] = {
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
    "INSERT INTO meta VALUES ('epoch', 0), ('sequence', 0);"
    "CREATE TABLE jobs (seq INTEGER PRIMARY KEY, record BLOB NOT NULL);"
    "CREATE TABLE tasks (job INTEGER NOT NULL, task INTEGER NOT NULL, record BLOB NOT NULL,"
    " PRIMARY KEY (job, task)) WITHOUT ROWID;"
    "CREATE TABLE drains (worker TEXT PRIMARY KEY, session TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE garbage (uid TEXT PRIMARY KEY) WITHOUT ROWID;",
    "",  // records hold the API's messages: a server of 0.1.0 must not take this for damage
};
constexpr int kSchemaVersion = sizeof(kMigrations) / sizeof(kMigrations[0]);
constexpr int kApplicationId = 0x55514E46;  // "UQNF": tells our file from any other database
constexpr int kBusyTimeoutMs = 5000;

class Statement {
 public:
  Statement() = default;
  ~Statement() { Finalize(); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  int Prepare(sqlite3* db, const char* sql) {
    return sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement_, nullptr);
  }
  void Bind(int i, int64_t value) { sqlite3_bind_int64(statement_, i, value); }
  // Not copied: `text` outlives the next Run.
  void Bind(int i, absl::string_view text) {
    sqlite3_bind_text(statement_, i, text.data(), static_cast<int>(text.size()), SQLITE_STATIC);
  }
  void BindBlob(int i, absl::string_view bytes) {
    sqlite3_bind_blob(statement_, i, bytes.data(), static_cast<int>(bytes.size()), SQLITE_STATIC);
  }
  int Step() { return sqlite3_step(statement_); }
  int64_t Int(int column) { return sqlite3_column_int64(statement_, column); }
  absl::string_view Bytes(int column) {
    const void* data = sqlite3_column_blob(statement_, column);
    const int size = sqlite3_column_bytes(statement_, column);
    return {static_cast<const char*>(data), static_cast<size_t>(size)};
  }
  // Runs a statement that returns no row, and makes it ready for the next time.
  int Run() {
    const int rc = sqlite3_step(statement_);
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
  }
  void Finalize() {
    sqlite3_finalize(statement_);
    statement_ = nullptr;
  }

 private:
  sqlite3_stmt* statement_ = nullptr;
};

class SqliteStore : public JobStore {
 public:
  explicit SqliteStore(absl::string_view path) : path_(path) {}
  ~SqliteStore() override { Close(); }

  std::string backend() const override { return "sqlite"; }

  absl::StatusOr<uint64_t> Open() override {
    Close();
    UQ_RETURN_IF_ERROR(Lock());
    const int rc = sqlite3_open_v2(
        path_.c_str(), &db_,
        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
        nullptr);
    if (rc != SQLITE_OK) return Error(rc, "open");
    sqlite3_busy_timeout(db_, kBusyTimeoutMs);
    for (const char* pragma :
         {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=OFF",
          "PRAGMA temp_store=MEMORY", "PRAGMA wal_autocheckpoint=4000"}) {
      UQ_RETURN_IF_ERROR(Execute(pragma));
    }
    UQ_RETURN_IF_ERROR(Migrate());
    UQ_RETURN_IF_ERROR(QuickCheck());
    UQ_RETURN_IF_ERROR(PrepareStatements());
    UQ_RETURN_IF_ERROR(Execute("BEGIN IMMEDIATE"));
    absl::Status status = Execute("UPDATE meta SET value = value + 1 WHERE key = 'epoch'");
    if (status.ok()) status = Execute("COMMIT");
    if (!status.ok()) {
      sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
      return status;
    }
    UQ_ASSIGN_OR_RETURN(const int64_t epoch, Scalar("SELECT value FROM meta WHERE key = 'epoch'"));
    return static_cast<uint64_t>(epoch);
  }

  absl::StatusOr<LoadedState> Load() override {
    if (db_ == nullptr) return absl::FailedPreconditionError("the store is not open");
    LoadedState loaded;
    UQ_ASSIGN_OR_RETURN(const int64_t sequence,
                        Scalar("SELECT value FROM meta WHERE key = 'sequence'"));
    loaded.sequence = static_cast<uint64_t>(sequence);
    UQ_RETURN_IF_ERROR(Query("SELECT seq, record FROM jobs ORDER BY seq", [&](Statement& row) {
      absl::StatusOr<Job> job = DecodeJob(row.Bytes(1), &loaded.has_old_records);
      if (!job.ok()) return job.status();
      if (job->seq != static_cast<uint64_t>(row.Int(0))) {
        return MakeError(absl::StatusCode::kDataLoss, "STATE_CORRUPT",
                         absl::StrCat("job ", row.Int(0), " in ", path_, " holds job ", job->seq));
      }
      loaded.state.jobs.push_back(*std::move(job));
      return absl::OkStatus();
    }));
    UQ_RETURN_IF_ERROR(
        Query("SELECT job, task, record FROM tasks ORDER BY job, task", [&](Statement& row) {
          absl::StatusOr<Task> task = DecodeTask(row.Bytes(2), &loaded.has_old_records);
          if (!task.ok()) return task.status();
          loaded.state.tasks.push_back(
              {{static_cast<uint64_t>(row.Int(0)), static_cast<int32_t>(row.Int(1))},
               *std::move(task)});
          return absl::OkStatus();
        }));
    UQ_RETURN_IF_ERROR(Query("SELECT worker, session FROM drains", [&](Statement& row) {
      loaded.state.drains.push_back(ParseDrain(row.Bytes(0), row.Bytes(1)));
      return absl::OkStatus();
    }));
    UQ_RETURN_IF_ERROR(Query("SELECT uid FROM garbage", [&](Statement& row) {
      loaded.state.garbage.push_back(std::string(row.Bytes(0)));
      return absl::OkStatus();
    }));
    return loaded;
  }

  absl::Status Commit(const WriteBatch& batch) override {
    if (db_ == nullptr) return absl::FailedPreconditionError("the store is not open");
    UQ_CRASH_POINT("store.before_begin");
    UQ_RETURN_IF_ERROR(Execute("BEGIN IMMEDIATE"));
    absl::Status status = Write(batch);
    if (status.ok()) {
      UQ_CRASH_POINT("store.before_commit");
      status = Execute("COMMIT");
      UQ_CRASH_POINT("store.after_commit");
    }
    if (!status.ok()) sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
    return status;
  }

 private:
  absl::Status Write(const WriteBatch& batch) {
    advance_.Bind(1, static_cast<int64_t>(batch.expected_sequence));
    advance_.Bind(2, static_cast<int64_t>(batch.epoch));
    UQ_RETURN_IF_ERROR(Check(advance_.Run(), "advance the sequence"));
    if (sqlite3_changes(db_) != 1) {
      return MakeError(
          absl::StatusCode::kAborted, "STORE_FENCED",
          absl::StrCat("state ", path_, " is not at sequence ", batch.expected_sequence,
                       " of epoch ", batch.epoch, ": another server has taken it"));
    }
    for (const uint64_t seq : batch.deleted_jobs) {
      delete_job_.Bind(1, static_cast<int64_t>(seq));
      UQ_RETURN_IF_ERROR(Check(delete_job_.Run(), "delete a job"));
      delete_tasks_.Bind(1, static_cast<int64_t>(seq));
      UQ_RETURN_IF_ERROR(Check(delete_tasks_.Run(), "delete tasks"));
    }
    for (const Job& job : batch.jobs) {
      const std::string record = EncodeJob(job);
      put_job_.Bind(1, static_cast<int64_t>(job.seq));
      put_job_.BindBlob(2, record);
      UQ_RETURN_IF_ERROR(Check(put_job_.Run(), "write a job"));
    }
    for (const StoredTask& task : batch.tasks) {
      const std::string record = EncodeTask(task.task);
      put_task_.Bind(1, static_cast<int64_t>(task.ref.job));
      put_task_.Bind(2, static_cast<int64_t>(task.ref.index));
      put_task_.BindBlob(3, record);
      UQ_RETURN_IF_ERROR(Check(put_task_.Run(), "write a task"));
    }
    for (const std::string& worker : batch.deleted_drains) {
      delete_drain_.Bind(1, absl::string_view(worker));
      UQ_RETURN_IF_ERROR(Check(delete_drain_.Run(), "delete a drain"));
    }
    for (const WorkerDrain& drain : batch.drains) {
      put_drain_.Bind(1, absl::string_view(drain.worker));
      const std::string column = DrainColumn(drain);
      put_drain_.Bind(2, absl::string_view(column));
      UQ_RETURN_IF_ERROR(Check(put_drain_.Run(), "write a drain"));
    }
    for (const std::string& uid : batch.deleted_garbage) {
      delete_garbage_.Bind(1, absl::string_view(uid));
      UQ_RETURN_IF_ERROR(Check(delete_garbage_.Run(), "delete garbage"));
    }
    for (const std::string& uid : batch.garbage) {
      put_garbage_.Bind(1, absl::string_view(uid));
      UQ_RETURN_IF_ERROR(Check(put_garbage_.Run(), "write garbage"));
    }
    return absl::OkStatus();
  }

  absl::Status Lock() {
    const std::string lock_path = path_ + ".lock";
    lock_fd_ = open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock_fd_ < 0) {
      return MakeError(absl::StatusCode::kFailedPrecondition, "STATE_UNWRITABLE",
                       absl::StrCat("cannot create ", lock_path, ": ", std::strerror(errno),
                                    "; choose a directory that the server may write"));
    }
    if (flock(lock_fd_, LOCK_EX | LOCK_NB) != 0) {
      close(lock_fd_);
      lock_fd_ = -1;
      return FailedPrecondition("STATE_IN_USE",
                                absl::StrCat("state ", path_,
                                             " is in use by another server; stop it "
                                             "or choose another file"));
    }
    MakePrivate();
    return absl::OkStatus();
  }

  // Jobs' specs are nobody else's business. SQLite gives its journal files the database's mode;
  // those of an older server are narrowed. Where that fails it is the owner's choice.
  void MakePrivate() {
    const int fd = open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0) close(fd);
    for (const char* suffix : {"", "-wal", "-shm", ".lock"}) {
      const std::string path = path_ + suffix;
      struct stat info {};
      if (stat(path.c_str(), &info) == 0 && (info.st_mode & 077) != 0) {
        [[maybe_unused]] const int rc = chmod(path.c_str(), info.st_mode & 0700);
      }
    }
  }

  absl::Status Migrate() {
    UQ_ASSIGN_OR_RETURN(const int64_t version, Scalar("PRAGMA user_version"));
    UQ_ASSIGN_OR_RETURN(const int64_t application, Scalar("PRAGMA application_id"));
    UQ_ASSIGN_OR_RETURN(const int64_t tables, Scalar("SELECT count(*) FROM sqlite_master"));
    if (application != kApplicationId && tables > 0) {
      return FailedPrecondition("STATE_SCHEMA",
                                absl::StrCat(path_,
                                             " is a database of another program; choose "
                                             "another file"));
    }
    if (version > kSchemaVersion) {
      return FailedPrecondition(
          "STATE_SCHEMA",
          absl::StrCat("state ", path_, " has schema version ", version, ", this server knows ",
                       kSchemaVersion, "; run the newer server that wrote it"));
    }
    for (int64_t i = version; i < kSchemaVersion; ++i) {
      const std::string sql =
          absl::StrCat("BEGIN IMMEDIATE;", kMigrations[i], "PRAGMA user_version=", i + 1,
                       ";PRAGMA application_id=", kApplicationId, ";COMMIT;");
      const absl::Status status = Execute(sql.c_str());
      if (!status.ok()) {
        sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
        return Annotate(status, absl::StrCat("migration to schema version ", i + 1));
      }
    }
    return absl::OkStatus();
  }

  absl::Status QuickCheck() {
    std::string result;
    UQ_RETURN_IF_ERROR(Query("PRAGMA quick_check(1)", [&](Statement& row) {
      result = std::string(row.Bytes(0));
      return absl::OkStatus();
    }));
    if (result == "ok") return absl::OkStatus();
    return MakeError(absl::StatusCode::kDataLoss, "STATE_CORRUPT",
                     absl::StrCat("state ", path_, " is damaged (", result,
                                  "); restore it from a backup, or move it away to start empty"));
  }

  absl::Status PrepareStatements() {
    const std::pair<Statement*, const char*> statements[] = {
        {&advance_,
         "UPDATE meta SET value = value + 1 WHERE key = 'sequence' AND value = ?1 AND"
         " (SELECT value FROM meta WHERE key = 'epoch') = ?2"},
        {&put_job_,
         "INSERT INTO jobs VALUES (?1, ?2) ON CONFLICT (seq) DO UPDATE SET"
         " record = excluded.record"},
        {&delete_job_, "DELETE FROM jobs WHERE seq = ?1"},
        {&delete_tasks_, "DELETE FROM tasks WHERE job = ?1"},
        {&put_task_,
         "INSERT INTO tasks VALUES (?1, ?2, ?3) ON CONFLICT (job, task) DO UPDATE SET"
         " record = excluded.record"},
        {&put_drain_, "REPLACE INTO drains VALUES (?1, ?2)"},
        {&delete_drain_, "DELETE FROM drains WHERE worker = ?1"},
        {&put_garbage_, "REPLACE INTO garbage VALUES (?1)"},
        {&delete_garbage_, "DELETE FROM garbage WHERE uid = ?1"},
    };
    for (const auto& [statement, sql] : statements) {
      UQ_RETURN_IF_ERROR(Check(statement->Prepare(db_, sql), "prepare a statement"));
    }
    return absl::OkStatus();
  }

  absl::Status Execute(const char* sql) {
    return Check(sqlite3_exec(db_, sql, nullptr, nullptr, nullptr), sql);
  }
  absl::Status Query(const char* sql, const std::function<absl::Status(Statement&)>& row) {
    Statement statement;
    UQ_RETURN_IF_ERROR(Check(statement.Prepare(db_, sql), sql));
    int rc;
    while ((rc = statement.Step()) == SQLITE_ROW) UQ_RETURN_IF_ERROR(row(statement));
    return rc == SQLITE_DONE ? absl::OkStatus() : Error(rc, sql);
  }
  absl::StatusOr<int64_t> Scalar(const char* sql) {
    int64_t value = 0;
    bool found = false;
    UQ_RETURN_IF_ERROR(Query(sql, [&](Statement& row) {
      value = row.Int(0);
      found = true;
      return absl::OkStatus();
    }));
    if (!found) return Error(SQLITE_CORRUPT, sql);
    return value;
  }
  absl::Status Check(int rc, absl::string_view what) {
    return rc == SQLITE_OK ? absl::OkStatus() : Error(rc, what);
  }
  absl::Status Error(int rc, absl::string_view what) {
    const std::string message =
        absl::StrCat("state ", path_, ": ", db_ != nullptr ? sqlite3_errmsg(db_) : "no memory",
                     " (", sqlite3_errstr(rc), "; ", what.substr(0, 60), ")");
    switch (rc & 0xFF) {
      case SQLITE_FULL:
        return MakeError(absl::StatusCode::kResourceExhausted, "STATE_FULL",
                         absl::StrCat(message, "; free space on its disk"));
      case SQLITE_CORRUPT:
      case SQLITE_NOTADB:
        return MakeError(absl::StatusCode::kDataLoss, "STATE_CORRUPT",
                         absl::StrCat(message, "; restore it from a backup"));
      case SQLITE_CANTOPEN:
      case SQLITE_READONLY:
      case SQLITE_PERM:
        return FailedPrecondition("STATE_UNWRITABLE",
                                  absl::StrCat(message, "; let the server write there"));
      default:
        return Unavailable("STATE_UNAVAILABLE", message);
    }
  }
  void Close() {
    for (Statement* s : {&advance_, &put_job_, &delete_job_, &delete_tasks_, &put_task_,
                         &put_drain_, &delete_drain_, &put_garbage_, &delete_garbage_}) {
      s->Finalize();
    }
    if (db_ != nullptr) sqlite3_close(db_);
    db_ = nullptr;
    if (lock_fd_ >= 0) close(lock_fd_);  // gives up the lock
    lock_fd_ = -1;
  }

  const std::string path_;
  int lock_fd_ = -1;
  sqlite3* db_ = nullptr;
  Statement advance_, put_job_, delete_job_, delete_tasks_, put_task_, put_drain_, delete_drain_,
      put_garbage_, delete_garbage_;
};

}  // namespace

std::unique_ptr<JobStore> NewSqliteStore(absl::string_view path) {
  return std::make_unique<SqliteStore>(path);
}

}  // namespace uniquanf::server
