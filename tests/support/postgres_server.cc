#include "tests/support/postgres_server.h"

#include <libpq-fe.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace uniquanf {
namespace {

constexpr char kScript[] = UNIQUANF_SOURCE_DIR "/scripts/postgres-server.sh";

}  // namespace

PostgresServer::~PostgresServer() {
  if (!uri_.empty()) RunScript("stop");
}

bool PostgresServer::RunScript(const std::string& command) {
  return std::system(absl::StrCat(kScript, " ", command, " ", dir_.path()).c_str()) == 0;
}

int PostgresServer::Start() {
  FILE* out = popen(absl::StrCat(kScript, " start ", dir_.path()).c_str(), "r");
  if (out == nullptr) return 1;
  char buffer[1024];
  std::string text;
  while (const size_t count = fread(buffer, 1, sizeof(buffer), out)) text.append(buffer, count);
  const int status = pclose(out);
  if (status != 0) return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
  while (!text.empty() && text.back() == '\n') text.pop_back();
  uri_ = text;
  return 0;
}

std::string PostgresServer::NewState() {
  const std::string schema = absl::StrCat("state_", ++num_states_);
  Sql(uri_, absl::StrCat("CREATE SCHEMA ", schema));
  return absl::StrCat(uri_, "?options=-csearch_path%3D", schema);
}

bool PostgresServer::Crash() { return RunScript("crash"); }
bool PostgresServer::Restart() { return RunScript("restart"); }

std::vector<std::string> PostgresServer::Sql(const std::string& state, const std::string& sql) {
  PGconn* connection = PQconnectdb(state.c_str());
  if (PQstatus(connection) != CONNECTION_OK) {
    std::fprintf(stderr, "%s\n", PQerrorMessage(connection));
    std::abort();
  }
  PGresult* result = PQexec(connection, sql.c_str());
  const ExecStatusType status = PQresultStatus(result);
  if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
    std::fprintf(stderr, "%s: %s\n", sql.c_str(), PQresultErrorMessage(result));
    std::abort();
  }
  std::vector<std::string> column;
  for (int i = 0; i < PQntuples(result); ++i) column.push_back(PQgetvalue(result, i, 0));
  PQclear(result);
  PQfinish(connection);
  return column;
}

}  // namespace uniquanf
