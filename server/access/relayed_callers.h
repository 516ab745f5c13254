// Who stands behind the calls that the server's own HTTP address makes over an in-process channel:
// what the peer's certificate says, and where the peer is. A call names its entry by an id of 100
// random bits in its metadata, which exists only while the call does; so nobody who calls from
// outside can be taken for somebody else.
//
// Thread safety: thread-safe. Lifetime: outlives its tickets.
#ifndef UNIQUANF_SERVER_ACCESS_RELAYED_CALLERS_H_
#define UNIQUANF_SERVER_ACCESS_RELAYED_CALLERS_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/base/ids.h"
#include "server/access/access_policy.h"

namespace uniquanf::server {

struct RelayedCaller {
  PeerNames certificate;  // verified
  std::string peer;       // "ipv4:10.0.0.1:4711"
};

class RelayedCallers {
 public:
  static constexpr char kMetadataKey[] = "uniquanf-relayed-caller";

  // An entry, for as long as it lives.
  class Ticket {
   public:
    Ticket(RelayedCallers* callers, std::string id) : callers_(callers), id_(std::move(id)) {}
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;
    ~Ticket() {
      absl::MutexLock lock(&callers_->mutex_);
      callers_->callers_.erase(id_);
    }
    const std::string& id() const { return id_; }

   private:
    RelayedCallers* const callers_;
    const std::string id_;
  };

  std::unique_ptr<Ticket> Add(RelayedCaller caller) {
    const std::string id = ids_->NewId("relayed");
    absl::MutexLock lock(&mutex_);
    callers_.emplace(id, std::move(caller));
    return std::make_unique<Ticket>(this, id);
  }
  std::optional<RelayedCaller> Find(const std::string& id) const {
    absl::MutexLock lock(&mutex_);
    const auto it = callers_.find(id);
    if (it == callers_.end()) return std::nullopt;
    return it->second;
  }

 private:
  const std::unique_ptr<IdGenerator> ids_ = NewRandomIdGenerator();
  mutable absl::Mutex mutex_;
  std::map<std::string, RelayedCaller> callers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_ACCESS_RELAYED_CALLERS_H_
