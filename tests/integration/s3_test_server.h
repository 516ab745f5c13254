// The real S3 server of scripts/s3-server.sh for the length of a test program.
//
// Thread safety: not thread-safe; Start once, from main.
#ifndef UNIQUANF_TESTS_INTEGRATION_S3_TEST_SERVER_H_
#define UNIQUANF_TESTS_INTEGRATION_S3_TEST_SERVER_H_

#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/object_store/s3_store.h"

namespace uniquanf {

class S3TestServer {
 public:
  S3TestServer();
  ~S3TestServer();  // stops it

  // 0, or the exit status with which the program should end: 77 for "skip". A server that runs
  // already is used when AWS_ENDPOINT_URL is set.
  int Start();
  // The same with its objects in files, and always a server of its own.
  int StartDurable();
  // kill -9 to every process of it; and up again on the same data and port. REQUIRES: StartDurable.
  bool Crash();
  bool Restart();

  // An environment that names this server, and nothing else of the process's.
  Environment NewEnvironment(const std::map<std::string, std::string>& changes = {}) const;
  // Puts these settings into this process's environment, which child processes inherit, and returns
  // "127.0.0.1:PORT".
  std::string UseInThisProcess() const;
  // Makes another user, with the keys AKNAME and SKNAME. False: it is not this program's server.
  bool NewUser(const std::string& name);
  const std::string& port() const { return port_; }

 private:
  int RunStart(const std::string& command);
  bool RunScript(const std::string& command);
  void SetPort();

  const std::string directory_;
  bool started_ = false;
  std::string port_;
  std::map<std::string, std::string> settings_;
};

// Creates a bucket with a fresh name and returns the name.
std::string NewTestBucket(const Environment& environment, absl::string_view acl = "private");

// Writes an object with an access control list, which stores never do.
bool PutTestObject(const Environment& environment, const std::string& bucket,
                   const std::string& key, absl::string_view data, absl::string_view acl);

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_INTEGRATION_S3_TEST_SERVER_H_
