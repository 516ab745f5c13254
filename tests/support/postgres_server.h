// The real PostgreSQL server of scripts/postgres-server.sh, for the length of a test program.
//
// Thread safety: none. The destructor stops it.
#ifndef UNIQUANF_TESTS_SUPPORT_POSTGRES_SERVER_H_
#define UNIQUANF_TESTS_SUPPORT_POSTGRES_SERVER_H_

#include <string>
#include <vector>

#include "tests/support/temp_dir.h"

namespace uniquanf {

// What a test program exits with to say "skipped".
inline constexpr int kSkipExitCode = 77;

class PostgresServer {
 public:
  PostgresServer() = default;
  ~PostgresServer();

  // 0, or the exit status with which the program should end: kSkipExitCode where PostgreSQL is not
  // installed.
  int Start();
  // The URI of a new, empty state: a schema of its own.
  std::string NewState();
  // kill -9 to every process of it; and up again on the same data.
  bool Crash();
  bool Restart();
  std::string LogFile() const { return dir_.File("data/server.log"); }
  // Runs SQL in the schema of `state` as the owner; the first column of every row. Aborts the test
  // when it fails.
  std::vector<std::string> Sql(const std::string& state, const std::string& sql);

  static constexpr char kPassword[] = "uniquanf-password";

 private:
  bool RunScript(const std::string& command);

  TempDir dir_;
  std::string uri_;
  int num_states_ = 0;
};

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_SUPPORT_POSTGRES_SERVER_H_
