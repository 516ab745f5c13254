// The whole service as real processes in a temporary directory: one server (or several on one
// PostgreSQL state), any number of workers, on free ports of the loopback interface. For tests that
// kill and restart them.
//
// Thread safety: none. Lifetime: the destructor kills every process and removes the directory;
// when the test has failed it prints the ends of the logs first.
#ifndef UNIQUANF_TESTS_SUPPORT_MINI_CLUSTER_H_
#define UNIQUANF_TESTS_SUPPORT_MINI_CLUSTER_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/include/uniquanf/client.h"
#include "tests/support/child_process.h"
#include "tests/support/temp_dir.h"

namespace uniquanf {

struct MiniClusterOptions {
  std::string binary_dir;  // where the programs are
  // A worker that is gone is noticed after this.
  absl::Duration lease_duration = absl::Seconds(3);
  std::vector<std::string> server_flags = {};  // added to the cluster's own
  // More than one needs a state that servers share: --state among the flags.
  int num_servers = 1;
  // Of a client that is used while the server may be gone for longer.
  int client_attempts = RetryOptions().max_attempts;
};

struct ProgramOptions {
  std::vector<std::string> flags = {};
  std::map<std::string, std::string> environment = {};
  std::string server = {};  // where a worker finds the server, when not directly: a proxy
  // A command that runs the program that its arguments name, such as in another mount namespace.
  std::vector<std::string> wrapper = {};
};

struct CommandResult {
  ExitStatus status;
  std::string output;  // both streams
};

class MiniCluster {
 public:
  explicit MiniCluster(const MiniClusterOptions& options);
  ~MiniCluster();

  // Starts the server and waits until it serves. Again after KillServer: on the same state and
  // port. False, with the log on stderr, when it does not come up. Of several servers: the first
  // one, and it must become the active one.
  bool StartServer(const ProgramOptions& options = {});
  // Starts one of the servers and waits only until it listens, standing by or not. False when it
  // ends before that.
  bool StartServer(int index, const ProgramOptions& options);
  void KillServer(int index = 0);
  ChildProcess* server(int index = 0) { return servers_[Index(index)].process.get(); }
  // Whether its ready file says that it is the active one. One that was killed cannot take it back.
  bool IsActive(int index) const;
  // Of one server, or of all of them joined by commas. REQUIRES: all have been started once.
  const std::string& address(int index) const { return servers_[Index(index)].address; }
  std::string address() const;

  // Starts workers/`name`; a second one of that name takes the place of the first (which must have
  // ended or been killed). Does not wait until it is accepted.
  ChildProcess* StartWorker(const std::string& name, const ProgramOptions& options = {});
  bool WaitUntilReady(const std::string& worker, absl::Duration timeout = absl::Seconds(30));
  ChildProcess* worker(const std::string& name) { return workers_.at(name).get(); }

  // Runs a program to its end (killed after `timeout`).
  CommandResult Run(const std::string& program, const std::vector<std::string>& arguments,
                    absl::Duration timeout = absl::Minutes(5));

  // What client() is made with (but for the address); before the first StartServer.
  void set_client_options(const ClientOptions& options) { client_options_ = options; }
  // Patient enough for a server that is being restarted. REQUIRES: all servers have been started.
  Client& client() { return *client_; }
  // A final job within `timeout`, or an error.
  absl::StatusOr<Job> WaitForJob(const std::string& job, absl::Duration timeout);
  // Until `condition` holds for the job's tasks.
  bool WaitForTasks(const std::string& job,
                    const std::function<bool(const std::vector<Task>&)>& condition,
                    absl::Duration timeout);

  // A path in the cluster's directory.
  std::string File(const std::string& name) const { return dir_.File(name); }

 private:
  struct Server {
    std::string name;  // of its files
    std::string address;
    std::unique_ptr<ChildProcess> process;
  };
  static size_t Index(int index) { return static_cast<size_t>(index); }
  std::string Program(const std::string& name) const;
  void SpawnServer(Server* server, const ProgramOptions& options);
  void ConnectClient();

  const MiniClusterOptions options_;
  TempDir dir_;
  std::vector<Server> servers_;
  std::map<std::string, std::unique_ptr<ChildProcess>> workers_;
  ClientOptions client_options_;
  std::unique_ptr<Client> client_;
  int num_commands_ = 0;
};

// Every file below `dir` that the manifest digests (all but what differs from run to run by
// design), by relative path, with its bytes. For comparing artifacts.
std::map<std::string, std::string> ArtifactBytes(const std::string& dir);

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_SUPPORT_MINI_CLUSTER_H_
