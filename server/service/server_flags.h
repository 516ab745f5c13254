// The flags of uniquanf-server. Errors: kInvalidArgument (INVALID_FLAG) names the flag, the value
// and what is allowed.
#ifndef UNIQUANF_SERVER_SERVICE_SERVER_FLAGS_H_
#define UNIQUANF_SERVER_SERVICE_SERVER_FLAGS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rpc/channel.h"
#include "server/core/policy.h"

namespace uniquanf::server {

struct ServerFlags {
  std::string listen = "127.0.0.1:50051";
  std::string metrics_listen;  // empty: off
  std::string data_dir = "uniquanf-data";
  std::string state;        // empty: <data_dir>/state.sqlite
  std::string object_root;  // empty: file://<data_dir>/objects
  std::string ready_file;
  std::string log_format = "text";
  std::string log_level = "info";
  absl::Duration shutdown_timeout = absl::Seconds(10);
  absl::Duration unfinished_upload_age = absl::Hours(24);  // zero: never removed
  ServerTlsOptions tls;
  Policy policy;
  bool version = false;
  std::string help;  // not empty: --help was given, and this is it
};

// After this every path is absolute and every default is filled in.
absl::StatusOr<ServerFlags> ParseServerFlags(const std::vector<std::string>& arguments);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_SERVICE_SERVER_FLAGS_H_
