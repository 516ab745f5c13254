// The flags of uniquanf-server. Errors: kInvalidArgument (INVALID_FLAG) names the flag, the value
// and what is allowed.
#ifndef UNIQUANF_SERVER_SERVICE_SERVER_FLAGS_H_
#define UNIQUANF_SERVER_SERVICE_SERVER_FLAGS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rpc/server_tls.h"
#include "server/core/policy.h"

namespace uniquanf::server {

struct ServerFlags {
  std::string listen = "127.0.0.1:50051";
  std::string metrics_listen;        // empty: off
  int max_connections = 0;           // 0: what the process's file limit bears
  int max_connections_per_peer = 0;  // 0: half of that
  std::string data_dir = "uniquanf-data";
  std::string state;        // empty: <data_dir>/state.sqlite
  std::string object_root;  // empty: file://<data_dir>/objects
  std::string ready_file;
  std::string log_format = "text";
  std::string log_level = "info";
  absl::Duration shutdown_timeout = absl::Seconds(10);
  absl::Duration unfinished_upload_age = absl::Hours(24);  // zero: never removed
  ServerTlsOptions tls;
  std::string http_listen;  // empty: off
  int http_max_streams = 50;
  std::string worker_listen;   // empty: workers come to `listen`
  std::string worker_ca_file;  // empty: as for everybody
  std::string policy_file;     // empty: nobody is asked who he is
  bool insecure_allow_anonymous = false;
  std::string audit_file;  // empty: none
  bool audit_required = false;
  std::string credentials_dir;  // of tenants (DataAccess); empty: none
  bool reflection = false;
  bool core_dumps = false;
  Policy policy;
  std::string health;  // not empty: check this address or URL, and end
  bool version = false;
  std::string help;  // not empty: --help was given, and this is it
};

// After this every path is absolute and every default is filled in. `state_from_env`: what the
// environment variable UNIQUANF_STATE says, used where no flag names the state: it may hold a
// password, which arguments, that every user of the machine can list, should not.
absl::StatusOr<ServerFlags> ParseServerFlags(const std::vector<std::string>& arguments,
                                             const std::string& state_from_env = "");

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_SERVICE_SERVER_FLAGS_H_
