// What the service tells its clients, as plain values.
//
// States, and what jobs, tasks and reports consist of: common/job. Thread safety: plain values.
// Times and durations that are not known, or never, are nullopt; those of workers and servers,
// whose answers always have them, are absl::InfinitePast() in one of an older server.
#ifndef UNIQUANF_CLIENT_INCLUDE_UNIQUANF_TYPES_H_
#define UNIQUANF_CLIENT_INCLUDE_UNIQUANF_TYPES_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/job/job.h"
#include "common/job/report.h"
#include "common/spec/quantization_spec.h"

namespace uniquanf {

enum class WorkerState { kUnknown, kReady, kDraining, kLost, kQuarantined };
absl::string_view WorkerStateName(WorkerState state);

// Names are resource names: "jobs/{job}", "workers/{worker}", "jobs/{job}/tasks/{task}".
struct Job : JobFields {
  std::string name;
  QuantizationSpec spec;
  JobProgress progress;
  std::optional<JobReport> report;  // in kSucceeded
  // From SubmitJob alone: what of what the spec names could not be looked at, and why.
  std::vector<std::string> not_checked;
};

struct Task : TaskFields {
  std::string name;
};

struct Worker {
  std::string name;  // "workers/{worker}"
  std::string session_id;
  WorkerState state = WorkerState::kUnknown;
  std::string device;
  std::string device_description;
  int64_t memory_bytes = 0;
  int num_slots = 0;
  int num_cpus = 0;  // that it computes on; 0: an older worker, which does not say
  std::map<std::string, std::string> labels;
  std::string software_version;
  absl::Time start_time = absl::InfinitePast();
  absl::Time last_seen_time = absl::InfinitePast();
  std::vector<std::string> tasks;  // leased now
  std::string status_message;      // kQuarantined: why, and for how long
  std::string process;             // names it among those that share the worker's name
};

struct ServerInfo {
  std::string version;
  bool active = false;  // false: a standby
  std::string state_backend;
  std::string object_root;
  absl::Time start_time = absl::InfinitePast();
  int64_t num_jobs = 0;
  int64_t num_tasks_ready = 0;
  int64_t num_tasks_leased = 0;
  // How far its wall clock is ahead of what it believes: deadlines and deletions wait meanwhile.
  absl::Duration wall_clock_ahead;
};

}  // namespace uniquanf

#endif  // UNIQUANF_CLIENT_INCLUDE_UNIQUANF_TYPES_H_
