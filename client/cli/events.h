// What happened to a job, in the order of time, from what the API tells of it and its tasks.
// Thread safety: plain values and free functions.
#ifndef UNIQUANF_CLIENT_CLI_EVENTS_H_
#define UNIQUANF_CLIENT_CLI_EVENTS_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/include/uniquanf/client.h"

namespace uniquanf::cli {

struct JobEvent {
  absl::Time time;
  std::string task;  // "layer-0003", or "" for the job
  int attempt = 0;   // of the task
  std::string what;  // "created", "started", "failed", "succeeded", "cancelled"
  std::string worker, reason, message;
};

// Of each task the attempt that runs or ran last, and the failures that the server remembers (the
// latest eight).
std::vector<JobEvent> EventsOf(const Job& job, const std::vector<Task>& tasks);

// "2026-01-31 12:34:56  layer-0003  attempt 2 started on gpu-1".
std::string EventText(const JobEvent& event);
nlohmann::ordered_json ToJson(const JobEvent& event);

}  // namespace uniquanf::cli

#endif  // UNIQUANF_CLIENT_CLI_EVENTS_H_
