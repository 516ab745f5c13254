// What a seed means for a chaos run beyond its first generator's draws: whether the state is in
// PostgreSQL with two servers, and what befalls the servers, the database and the object store.
//
// Drawn from a generator of its own, so that a seed's other draws are the same with and without.
#ifndef UNIQUANF_TESTS_FAULT_CHAOS_PLAN_H_
#define UNIQUANF_TESTS_FAULT_CHAOS_PLAN_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/time/time.h"

namespace uniquanf {

struct PlannedAction {
  enum class Kind {
    kKillDatabase,
    kKillStore,
    kKillServer,
    kStopServer,  // SIGSTOP: beyond its session with the database, in part of the cases
    kEndServer    // SIGTERM
  };
  Kind kind;
  absl::Duration at;        // after the submission, or as soon after that as it can be done
  absl::Duration duration;  // of the absence; of the servers', kStopServer's only
  int server = 0;           // which, for the servers' kinds
};

struct ChaosPlan {
  static constexpr int kNumServers = 2;

  bool on_postgres = false;
  std::vector<PlannedAction> with_postgres;  // in the order of their times
  std::vector<PlannedAction> with_s3;
  // On files: a working object of a finished task disappears at this time after the submission.
  std::optional<absl::Duration> lose_result_at;
};

ChaosPlan DrawPlan(uint64_t seed);

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_FAULT_CHAOS_PLAN_H_
