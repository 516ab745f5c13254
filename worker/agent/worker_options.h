// The command line of uniquanf-worker.
//
// Thread safety: free functions, no state. Errors: kInvalidArgument (INVALID_FLAG) names the flag,
// its value and what is allowed.
#ifndef UNIQUANF_WORKER_AGENT_WORKER_OPTIONS_H_
#define UNIQUANF_WORKER_AGENT_WORKER_OPTIONS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/base/flag_set.h"
#include "common/object_store/cache_flags.h"
#include "common/rpc/channel.h"

namespace uniquanf {

struct WorkerOptions {
  std::vector<std::string> servers;  // host:port; tried in turn
  std::string name;                  // {worker} of "workers/{worker}"
  std::map<std::string, std::string> labels;
  std::string device = "auto";  // "cpu", "cuda", "auto": cuda when there is a GPU
  int num_threads = 0;          // 0: as many as the process may use
  absl::Duration drain_timeout = absl::Minutes(10);
  absl::Duration exit_when_idle = absl::InfiniteDuration();  // infinite: never
  absl::Duration task_stall_timeout = absl::Minutes(30);     // infinite: never
  std::string metrics_listen;                                // host:port; empty: none
  std::string ready_file;
  std::string log_level = "info";
  std::string log_format = "text";
  std::optional<uint32_t> artifact_mode;  // nullopt: kArtifactMode less the umask
  CacheFlags cache;
  ClientTlsOptions tls;
  std::string token_file;        // empty: no token
  std::string credentials_dir;   // of tenants (DataAccess); empty: none
  std::string signing_key_file;  // empty: results are not signed
  std::string health;            // not empty: check this address or URL, and end
  bool wait_for_version = false;
  bool show_version = false;
  bool core_dumps = false;
};

// What the help shows, and where nothing is given. `host_name` becomes the default name (in lower
// case, other characters than [a-z0-9-] replaced by '-').
WorkerOptions DefaultWorkerOptions(absl::string_view host_name);

// Parses `arguments` over `defaults`. With --help, *help is the text and the options are the
// defaults.
absl::StatusOr<WorkerOptions> ParseWorkerOptions(const std::vector<std::string>& arguments,
                                                 const WorkerOptions& defaults, std::string* help);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_AGENT_WORKER_OPTIONS_H_
