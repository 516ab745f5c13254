// How closed a server is, as its flags say, and the parts that make it so.
#ifndef UNIQUANF_SERVER_SERVICE_SERVER_ACCESS_H_
#define UNIQUANF_SERVER_SERVICE_SERVER_ACCESS_H_

#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/rpc/notes.h"
#include "common/telemetry/logger.h"
#include "server/access/access_control.h"
#include "server/access/audit_log.h"
#include "server/service/server_flags.h"

namespace uniquanf::server {

// Whether everybody who reaches the port over a network may do everything. Errors: kInvalidArgument
// (INSECURE_LISTEN) where that was not asked for.
absl::StatusOr<bool> IsOpenToAll(const ServerFlags& flags);

// Those that the flags name; null where they name none. Errors: kInvalidArgument names the flag.
absl::Status OpenAccess(const ServerFlags& flags, const NoteSink& note,
                        std::unique_ptr<AccessControl>* access, std::unique_ptr<AuditLog>* audit);

// Writes notes to the log as what happened to `what`. `logger` is borrowed.
NoteSink NoteTo(Logger* logger, const std::string& what);

// Says, now and every hour, that everybody may do everything, where that is so.
class InsecureWarning {
 public:
  InsecureWarning(bool insecure, const std::string& listen, Logger* logger);
  ~InsecureWarning();

 private:
  absl::Mutex mutex_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_SERVICE_SERVER_ACCESS_H_
