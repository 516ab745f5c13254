// What of a worker's call has to be proved, and what shows without a look at the store that it is
// false.
//
// Thread safety: free functions.
#ifndef UNIQUANF_SERVER_SERVICE_OUTCOME_CLAIMS_H_
#define UNIQUANF_SERVER_SERVICE_OUTCOME_CLAIMS_H_

#include <string>
#include <vector>

#include "server/core/events.h"
#include "server/runtime/outcome_proof.h"
#include "server/runtime/published_state.h"
#include "uniquanf/v1/task.pb.h"

namespace uniquanf::server {

// What no honest worker reports: numbers that are none or below zero, texts without end; "" where
// there is nothing of it. A collapsed model's perplexity or loss may be infinite.
std::string FindNonsense(const v1::TaskOutcome& outcome);

// The successes that `event` reports of leases which are its session's, as far as is known here.
// One that is not comes to nothing anyway.
std::vector<OutcomeClaim> ClaimsOf(const SynchronizeEvent& event, const PublishedState& published);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_SERVICE_OUTCOME_CLAIMS_H_
