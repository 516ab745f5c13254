#include "server/service/server_access.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/listen_socket.h"
#include "common/base/status.h"

namespace uniquanf::server {

absl::StatusOr<bool> IsOpenToAll(const ServerFlags& flags) {
  const bool closed = flags.tls.enabled() && !flags.policy_file.empty();
  if (closed) return false;
  std::string open_flag;
  for (const auto& [flag, listen] :
       {std::pair{"--listen=", flags.listen}, std::pair{"--worker-listen=", flags.worker_listen},
        std::pair{"--http-listen=", flags.http_listen}}) {
    if (listen.empty()) continue;
    const absl::StatusOr<bool> loopback = IsLoopbackOnly(listen);
    if (!loopback.ok()) return Annotate(loopback.status(), flag);
    if (!*loopback && open_flag.empty()) open_flag = absl::StrCat(flag, listen);
  }
  if (open_flag.empty()) return false;
  if (flags.insecure_allow_anonymous) return true;
  return InvalidInput(
      "INSECURE_LISTEN",
      absl::StrCat(open_flag, " can be reached from other machines, and ",
                   flags.tls.enabled() ? "no --policy says who may do what"
                                       : "there is no TLS (--tls-cert, --tls-key)",
                   "; give both, listen on 127.0.0.1, or let everybody who reaches it do "
                   "everything with --insecure-allow-anonymous"));
}

absl::Status OpenAccess(const ServerFlags& flags, const NoteSink& note,
                        std::unique_ptr<AccessControl>* access, std::unique_ptr<AuditLog>* audit) {
  if (!flags.policy_file.empty()) {
    AccessOptions options;
    options.policy_file = flags.policy_file;
    options.note = note;
    auto started = AccessControl::Start(std::move(options), &SystemClock());
    if (!started.ok()) return Annotate(started.status(), "--policy");
    *access = *std::move(started);
  }
  if (!flags.audit_file.empty()) {
    UQ_ASSIGN_OR_RETURN(*audit, AuditLog::Open(flags.audit_file, note));
  }
  return absl::OkStatus();
}

NoteSink NoteTo(Logger* logger, const std::string& what) {
  return [logger, what](NoteLevel level, const std::string& text) {
    logger->Log(level == NoteLevel::kWarning ? LogLevel::kWarning : LogLevel::kInfo, what,
                {{"message", text}});
  };
}

InsecureWarning::InsecureWarning(bool insecure, const std::string& listen, Logger* logger) {
  if (!insecure) return;
  thread_ = std::thread([this, listen, logger] {
    absl::MutexLock lock(&mutex_);
    do {
      logger->Warning(
          "everybody who reaches the gRPC port may do everything: it is open to other machines "
          "without TLS and a policy",
          {{"listen", listen}});
    } while (!mutex_.AwaitWithTimeout(absl::Condition(&stop_), absl::Hours(1)));
  });
}

InsecureWarning::~InsecureWarning() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

}  // namespace uniquanf::server
