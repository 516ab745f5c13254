#include "server/store/postgres_connection.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/status.h"

namespace uniquanf::server {
namespace {

constexpr char kSqlStatePayload[] = "uniquanf/sqlstate";
// Longest wait for the next sign of life while a statement runs.
constexpr absl::Duration kReplyTimeout = absl::Seconds(30);

// Types of array elements, from PostgreSQL's catalog (pg_type.dat); they never change.
constexpr int32_t kOidBytea = 17, kOidInt8 = 20, kOidInt4 = 23, kOidText = 25;

std::string BigEndian32(int32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) {
    bytes.push_back(static_cast<char>(static_cast<uint32_t>(value) >> shift));
  }
  return bytes;
}
std::string BigEndian64(int64_t value) {
  const uint64_t bits = static_cast<uint64_t>(value);
  return BigEndian32(static_cast<int32_t>(bits >> 32)) + BigEndian32(static_cast<int32_t>(bits));
}

// array_send's format: dimensions, has-null flag, element type, size, lower bound, elements.
template <typename T, typename Encode>
std::string Array(int32_t oid, const std::vector<T>& values, const Encode& encode) {
  if (values.empty()) return BigEndian32(0) + BigEndian32(0) + BigEndian32(oid);
  std::string bytes = BigEndian32(1) + BigEndian32(0) + BigEndian32(oid) +
                      BigEndian32(static_cast<int32_t>(values.size())) + BigEndian32(1);
  for (const T& value : values) {
    const auto& element = encode(value);
    bytes += BigEndian32(static_cast<int32_t>(element.size()));
    bytes.append(element.data(), element.size());
  }
  return bytes;
}

struct ConninfoFree {
  void operator()(PQconninfoOption* options) const { PQconninfoFree(options); }
};
struct ResultClear {
  void operator()(PGresult* result) const { PQclear(result); }
};
using Result = std::unique_ptr<PGresult, ResultClear>;

// The settings that `uri` gives, and no defaults.
absl::StatusOr<std::map<std::string, std::string>> ParseUri(const std::string& uri) {
  char* message = nullptr;
  const std::unique_ptr<PQconninfoOption, ConninfoFree> options(
      PQconninfoParse(uri.c_str(), &message));
  // The message may quote the URI, and with it the password.
  if (message != nullptr) PQfreemem(message);
  if (options == nullptr) {
    return InvalidInput("INVALID_STATE_URI",
                        "the state is not a valid PostgreSQL URI; give "
                        "postgresql://[user[:password]@]host[:port][,...]/database[?setting=value]"
                        " with special characters percent-encoded");
  }
  std::map<std::string, std::string> settings;
  for (const PQconninfoOption* option = options.get(); option->keyword != nullptr; ++option) {
    if (option->val != nullptr) settings[option->keyword] = option->val;
  }
  return settings;
}

std::string OneLine(const char* message) {
  std::string text(message == nullptr ? "" : message);
  absl::StripAsciiWhitespace(&text);
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

}  // namespace

std::string SqlState(const absl::Status& status) {
  const auto payload = status.GetPayload(kSqlStatePayload);
  return payload.has_value() ? std::string(*payload) : "";
}

PgParams& PgParams::Add(int64_t value) {
  values_.push_back(BigEndian64(value));
  return *this;
}
PgParams& PgParams::AddText(absl::string_view text) {
  values_.emplace_back(text);
  return *this;
}
PgParams& PgParams::AddArray(const std::vector<int64_t>& values) {
  values_.push_back(Array(kOidInt8, values, BigEndian64));
  return *this;
}
PgParams& PgParams::AddArray(const std::vector<int32_t>& values) {
  values_.push_back(Array(kOidInt4, values, BigEndian32));
  return *this;
}
PgParams& PgParams::AddBytes(const std::vector<std::string>& values) {
  const auto identity = [](const std::string& value) -> const std::string& { return value; };
  values_.push_back(Array(kOidBytea, values, identity));
  return *this;
}
PgParams& PgParams::AddTexts(const std::vector<std::string>& values) {
  const auto identity = [](const std::string& value) -> const std::string& { return value; };
  values_.push_back(Array(kOidText, values, identity));
  return *this;
}

int64_t PgRow::Int(int column) const {
  const absl::string_view bytes = Bytes(column);
  uint64_t value = !bytes.empty() && (bytes[0] & 0x80) != 0 ? ~uint64_t{0} : 0;
  if (bytes.size() == 1) value = 0;  // boolean
  for (const char byte : bytes) value = value << 8 | static_cast<uint8_t>(byte);
  return static_cast<int64_t>(value);
}

absl::string_view PgRow::Bytes(int column) const {
  return {PQgetvalue(result_, row_, column),
          static_cast<size_t>(PQgetlength(result_, row_, column))};
}

absl::StatusOr<std::string> PgConnection::DisplayName(const std::string& uri) {
  UQ_ASSIGN_OR_RETURN(auto settings, ParseUri(uri));
  std::string name = absl::StrCat("postgresql://", settings["host"]);
  if (!settings["port"].empty()) absl::StrAppend(&name, ":", settings["port"]);
  return absl::StrCat(name, "/", settings["dbname"]);
}

absl::StatusOr<std::unique_ptr<PgConnection>> PgConnection::Connect(const std::string& uri) {
  UQ_ASSIGN_OR_RETURN(auto settings, ParseUri(uri));
  UQ_ASSIGN_OR_RETURN(std::string name, DisplayName(uri));
  // Defaults that the URI may override: a peer that is gone is noticed within five seconds.
  for (const auto& [key, value] :
       std::map<std::string, std::string>{{"connect_timeout", "3"},
                                          {"keepalives_idle", "1"},
                                          {"keepalives_interval", "1"},
                                          {"keepalives_count", "3"},
                                          {"tcp_user_timeout", "4000"},
                                          {"target_session_attrs", "read-write"},
                                          {"client_encoding", "UTF8"},
                                          {"application_name", "uniquanf-server"}}) {
    settings.emplace(key, value);
  }
  std::vector<const char*> keys, values;
  for (const auto& [key, value] : settings) {
    keys.push_back(key.c_str());
    values.push_back(value.c_str());
  }
  keys.push_back(nullptr);
  values.push_back(nullptr);
  std::unique_ptr<PgConnection> connection(new PgConnection(std::move(name)));
  connection->connection_ = PQconnectdbParams(keys.data(), values.data(), 0);
  if (PQstatus(connection->connection_) != CONNECTION_OK) {
    return connection->ConnectionError("cannot connect");
  }
  UQ_RETURN_IF_ERROR(connection->Setup());
  return connection;
}

PgConnection::~PgConnection() {
  if (connection_ != nullptr) PQfinish(connection_);
}

absl::Status PgConnection::Setup() {
  PQsetNoticeProcessor(
      connection_, [](void*, const char*) {}, nullptr);
  // The session must end soon after this process or its machine does: it holds the lock. And what
  // is reported as written must be on disk, whatever the database's default says.
  return Execute(
      "SET synchronous_commit = on; SET statement_timeout = '30s'; SET lock_timeout = '5s';"
      "SET idle_in_transaction_session_timeout = '10s'; SET tcp_keepalives_idle = 1;"
      "SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 3; SET tcp_user_timeout = 4000;"
      "SET client_connection_check_interval = '1s'");
}

absl::Status PgConnection::ConnectionError(absl::string_view what) const {
  // libpq's messages name host, user and database, never the password.
  const std::string detail =
      connection_ == nullptr ? "out of memory" : OneLine(PQerrorMessage(connection_));
  return Unavailable("STATE_UNAVAILABLE",
                     absl::StrCat("state ", name_, ": ", what, detail.empty() ? "" : ": ", detail));
}

absl::Status PgConnection::ResultError(const PGresult* result) const {
  const char* field = PQresultErrorField(result, PG_DIAG_SQLSTATE);
  const std::string state = field == nullptr ? "" : field;
  const std::string message = absl::StrCat(
      "state ", name_, ": ", OneLine(PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY)),
      " (SQLSTATE ", state.empty() ? "none" : state, ")");
  absl::Status status;
  if (absl::StartsWith(state, "53")) {  // insufficient resources; 53100: disk full
    status = state == "53300" ? Unavailable("STATE_UNAVAILABLE", message)
                              : MakeError(absl::StatusCode::kResourceExhausted, "STATE_FULL",
                                          absl::StrCat(message, "; free space on its disk"));
  } else if (absl::StartsWith(state, "XX00") && state != "XX000") {
    status = MakeError(absl::StatusCode::kDataLoss, "STATE_CORRUPT",
                       absl::StrCat(message, "; restore it from a backup"));
  } else if (absl::StartsWith(state, "42") || absl::StartsWith(state, "3F")) {
    // access rule violation; undefined object or schema
    status = FailedPrecondition(
        "STATE_UNWRITABLE",
        absl::StrCat(message, "; let the server's user create and write tables there"));
  } else {
    status = Unavailable("STATE_UNAVAILABLE", message);
  }
  status.SetPayload(kSqlStatePayload, absl::Cord(state));
  return status;
}

bool PgConnection::Wait(bool or_writable, absl::Time deadline) {
  while (true) {
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) return false;
    pollfd entry{PQsocket(connection_), static_cast<int16_t>(POLLIN | (or_writable ? POLLOUT : 0)),
                 0};
    if (entry.fd < 0) return true;  // closed: the next call of libpq says so
    const int rc = poll(&entry, 1, static_cast<int>(absl::ToInt64Milliseconds(left)) + 1);
    if (rc > 0) return true;
    if (rc < 0 && errno != EINTR) return true;
  }
}

absl::Status PgConnection::Flush(absl::Time deadline) {
  while (true) {
    const int rc = PQflush(connection_);
    if (rc == 0) return absl::OkStatus();
    if (rc < 0) return ConnectionError("cannot send");
    if (!Wait(true, deadline)) return ConnectionError("no progress in sending");
    // Replies that are not read would stop the server from reading what is sent.
    if (PQconsumeInput(connection_) == 0) return ConnectionError("the connection broke");
  }
}

absl::StatusOr<PGresult*> PgConnection::NextResult(absl::Time deadline) {
  while (PQisBusy(connection_) != 0) {
    if (!Wait(false, deadline)) return ConnectionError("no answer");
    if (PQconsumeInput(connection_) == 0) return ConnectionError("the connection broke");
  }
  return PQgetResult(connection_);
}

absl::Status PgConnection::Drain(const RowCallback* row) {
  absl::Status status;
  while (true) {
    UQ_ASSIGN_OR_RETURN(PGresult * raw, NextResult(absl::Now() + kReplyTimeout));
    if (raw == nullptr) return status;
    const Result result(raw);
    switch (PQresultStatus(raw)) {
      case PGRES_COMMAND_OK:
      case PGRES_EMPTY_QUERY:
        break;
      case PGRES_SINGLE_TUPLE:
      case PGRES_TUPLES_OK:
        for (int i = 0; row != nullptr && status.ok() && i < PQntuples(raw); ++i) {
          status = (*row)(PgRow(raw, i));
        }
        break;
      default:
        if (PQstatus(connection_) != CONNECTION_OK) {
          return ConnectionError("the connection broke");
        }
        if (status.ok()) status = ResultError(raw);
    }
  }
}

absl::Status PgConnection::Execute(const std::string& sql) {
  if (PQsendQuery(connection_, sql.c_str()) == 0) return ConnectionError("cannot send");
  UQ_RETURN_IF_ERROR(Flush(absl::Now() + kReplyTimeout));
  return Drain(nullptr);
}

absl::Status PgConnection::Query(const std::string& sql, const PgParams& params,
                                 const RowCallback& row) {
  std::vector<const char*> values;
  std::vector<int> lengths, formats;
  for (const std::string& value : params.values()) {
    values.push_back(value.data());
    lengths.push_back(static_cast<int>(value.size()));
    formats.push_back(1);
  }
  if (PQsendQueryParams(connection_, sql.c_str(), static_cast<int>(values.size()), nullptr,
                        values.data(), lengths.data(), formats.data(), /*resultFormat=*/1) == 0) {
    return ConnectionError("cannot send");
  }
  PQsetSingleRowMode(connection_);  // a large table is never in memory twice
  UQ_RETURN_IF_ERROR(Flush(absl::Now() + kReplyTimeout));
  return Drain(&row);
}

absl::StatusOr<int64_t> PgConnection::Scalar(const std::string& sql, const PgParams& params) {
  int64_t value = 0;
  bool found = false;
  UQ_RETURN_IF_ERROR(Query(sql, params, [&](const PgRow& row) {
    value = row.Int(0);
    found = true;
    return absl::OkStatus();
  }));
  if (!found) {
    return MakeError(absl::StatusCode::kDataLoss, "STATE_CORRUPT",
                     absl::StrCat("state ", name_,
                                  " lacks a row that it must have; restore it "
                                  "from a backup"));
  }
  return value;
}

absl::Status PgConnection::Prepare(const std::string& name, const std::string& sql) {
  if (PQsendPrepare(connection_, name.c_str(), sql.c_str(), 0, nullptr) == 0) {
    return ConnectionError("cannot send");
  }
  UQ_RETURN_IF_ERROR(Flush(absl::Now() + kReplyTimeout));
  return Drain(nullptr);
}

void PgConnection::BeginPipeline() {
  num_sent_ = 0;
  send_status_ = absl::OkStatus();
  if (PQsetnonblocking(connection_, 1) != 0 || PQenterPipelineMode(connection_) == 0) {
    send_status_ = ConnectionError("cannot send");
  }
}

void PgConnection::Send(const std::string& prepared, const PgParams& params) {
  if (!send_status_.ok()) return;
  std::vector<const char*> values;
  std::vector<int> lengths, formats;
  for (const std::string& value : params.values()) {
    values.push_back(value.data());
    lengths.push_back(static_cast<int>(value.size()));
    formats.push_back(1);
  }
  if (PQsendQueryPrepared(connection_, prepared.c_str(), static_cast<int>(values.size()),
                          values.data(), lengths.data(), formats.data(), 1) == 0) {
    send_status_ = ConnectionError("cannot send");
    return;
  }
  ++num_sent_;
}

absl::Status PgConnection::FinishPipeline() {
  UQ_RETURN_IF_ERROR(send_status_);
  // Up to here nothing can have been committed: the statements since the last synchronization point
  // are one transaction, which ends with this one.
  if (PQpipelineSync(connection_) == 0) return ConnectionError("cannot send");
  UQ_RETURN_IF_ERROR(Flush(absl::Now() + kReplyTimeout));
  absl::Status status;
  for (int i = 0; i < num_sent_; ++i) {
    const absl::Status statement = [&]() -> absl::Status {
      absl::Status first;
      while (true) {
        UQ_ASSIGN_OR_RETURN(PGresult * raw, NextResult(absl::Now() + kReplyTimeout));
        if (raw == nullptr) return first;
        const Result result(raw);
        const ExecStatusType type = PQresultStatus(raw);
        if (type == PGRES_FATAL_ERROR && PQstatus(connection_) != CONNECTION_OK) {
          return ConnectionError("the connection broke");
        }
        if (type == PGRES_FATAL_ERROR && first.ok()) first = ResultError(raw);
      }
    }();
    if (PQstatus(connection_) != CONNECTION_OK) return statement;
    if (status.ok()) status = statement;  // later statements are only told that one has failed
  }
  UQ_ASSIGN_OR_RETURN(PGresult * raw, NextResult(absl::Now() + kReplyTimeout));
  const Result sync(raw);
  const ExecStatusType type = raw == nullptr ? PGRES_FATAL_ERROR : PQresultStatus(raw);
  // The commit itself happens at the synchronization point and may fail there.
  if (status.ok() && type != PGRES_PIPELINE_SYNC) {
    status = raw == nullptr || PQstatus(connection_) != CONNECTION_OK
                 ? ConnectionError("the connection broke")
                 : ResultError(raw);
    return status;  // the pipeline is out of step; the connection is not used again
  }
  if (PQexitPipelineMode(connection_) == 0 || PQsetnonblocking(connection_, 0) != 0) {
    return status.ok() ? absl::OkStatus() : status;
  }
  return status;
}

}  // namespace uniquanf::server
