// What the agent tells the rest of the program: for logs, metrics and the ready file.
//
// Thread safety: implementations are thread-safe; calls come with the agent's lock held and must
// return quickly.
#ifndef UNIQUANF_WORKER_AGENT_AGENT_OBSERVER_H_
#define UNIQUANF_WORKER_AGENT_AGENT_OBSERVER_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "uniquanf/v1/worker_service.pb.h"

namespace uniquanf {

struct AgentSnapshot {
  int num_running = 0;
  int num_free_slots = 0;
  bool draining = false;
  int64_t num_leases_expired = 0;
};

class AgentObserver {
 public:
  virtual ~AgentObserver() = default;
  virtual void OnNote(const std::string& note) {}
  virtual void OnTaskStarted(int slot, const v1::TaskAssignment& assignment) {}
  virtual void OnTaskReturned(int slot, const v1::TaskAssignment& assignment,
                              const absl::Status& status, absl::Duration duration) {}
  // After every call of Synchronize; `status` is the server's or the transport's.
  virtual void OnSynchronized(const absl::Status& status, absl::Duration latency,
                              const AgentSnapshot& snapshot) {}
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_AGENT_AGENT_OBSERVER_H_
