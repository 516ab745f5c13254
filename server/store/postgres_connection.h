// One session with PostgreSQL: connecting, prepared statements in a pipeline, errors.
//
// Every wait has a deadline, and both ends probe a silent connection, so that a server or a machine
// that is gone is noticed within seconds. Passwords appear in no error and no log.
//
// Thread safety: none; one thread uses a connection at a time.
// Errors: kUnavailable (STATE_UNAVAILABLE): no connection, or the statement may work later;
// kResourceExhausted (STATE_FULL); kDataLoss (STATE_CORRUPT); kFailedPrecondition
// (STATE_UNWRITABLE): the user may not do that; kInvalidArgument (INVALID_STATE_URI). The payload
// that SqlState reads holds PostgreSQL's own code.
#ifndef UNIQUANF_SERVER_STORE_POSTGRES_CONNECTION_H_
#define UNIQUANF_SERVER_STORE_POSTGRES_CONNECTION_H_

#include <libpq-fe.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace uniquanf::server {

// SQLSTATE of an error from PostgreSQL, or "".
std::string SqlState(const absl::Status& status);

// Parameters of one statement, in PostgreSQL's binary format.
class PgParams {
 public:
  PgParams& Add(int64_t value);                                // bigint
  PgParams& AddText(absl::string_view text);                   // text
  PgParams& AddArray(const std::vector<int64_t>& values);      // bigint[]
  PgParams& AddArray(const std::vector<int32_t>& values);      // integer[]
  PgParams& AddBytes(const std::vector<std::string>& values);  // bytea[]
  PgParams& AddTexts(const std::vector<std::string>& values);  // text[]

  const std::vector<std::string>& values() const { return values_; }

 private:
  std::vector<std::string> values_;
};

// One row of a result; columns are bigint, integer, boolean (Int) or bytea, text (Bytes).
class PgRow {
 public:
  PgRow(const PGresult* result, int row) : result_(result), row_(row) {}
  int64_t Int(int column) const;
  absl::string_view Bytes(int column) const;

 private:
  const PGresult* const result_;
  const int row_;
};

class PgConnection {
 public:
  using RowCallback = std::function<absl::Status(const PgRow&)>;

  // `uri` is libpq's postgresql://..., several hosts included.
  static absl::StatusOr<std::unique_ptr<PgConnection>> Connect(const std::string& uri);
  // What `uri` names, without user and password: "postgresql://host:port/database".
  // Errors: kInvalidArgument, naming nothing of the URI.
  static absl::StatusOr<std::string> DisplayName(const std::string& uri);
  ~PgConnection();

  // One or several statements without parameters; results are dropped.
  absl::Status Execute(const std::string& sql);
  absl::Status Query(const std::string& sql, const PgParams& params, const RowCallback& row);
  absl::StatusOr<int64_t> Scalar(const std::string& sql, const PgParams& params = {});
  absl::Status Prepare(const std::string& name, const std::string& sql);

  // A transaction in one round trip: Begin, any number of Send, Finish. Either every statement took
  // effect, durably, or none did; or the connection broke (kUnavailable) and nobody knows.
  void BeginPipeline();
  void Send(const std::string& prepared, const PgParams& params);
  absl::Status FinishPipeline();

  int server_version() const { return PQserverVersion(connection_); }

 private:
  explicit PgConnection(std::string name) : name_(std::move(name)) {}
  absl::Status Setup();
  // The next result, null at the end of a statement's. Errors: kUnavailable when none came in time.
  absl::StatusOr<PGresult*> NextResult(absl::Time deadline);
  // Waits until the socket can be read, or also written. False at the deadline.
  bool Wait(bool or_writable, absl::Time deadline);
  absl::Status Flush(absl::Time deadline);
  absl::Status Drain(const RowCallback* row);
  absl::Status ResultError(const PGresult* result) const;
  absl::Status ConnectionError(absl::string_view what) const;

  const std::string name_;
  PGconn* connection_ = nullptr;
  absl::Status send_status_;
  int num_sent_ = 0;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_STORE_POSTGRES_CONNECTION_H_
