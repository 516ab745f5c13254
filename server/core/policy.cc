#include "server/core/policy.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/backoff.h"
#include "common/base/format_bytes.h"

namespace uniquanf::server {
namespace {

absl::Duration Backoff(const Policy& policy, int num_failures, double random) {
  return WithJitter(ExponentialBackoff(policy.backoff_initial, policy.backoff_max, num_failures),
                    random);
}

RetryDecision Bounded(int count, int limit, absl::Duration delay, FailureClass failure_class) {
  RetryDecision decision;
  decision.retry = count < limit;
  decision.delay = decision.retry ? delay : absl::ZeroDuration();
  if (!decision.retry) {
    decision.limit = absl::StrFormat("%d failures of class %s, the limit", count,
                                     FailureClassName(failure_class));
  }
  return decision;
}

// The first requirement that a worker does not meet.
struct Lack {
  enum class Kind { kNone, kTenant, kDevice, kLabel, kMemory, kMoreMemory };
  Kind kind = Kind::kNone;
  std::string label, value;  // kLabel
};

Lack FirstLack(const Job& job, const Task& task, const WorkerCapabilities& capabilities) {
  if (!capabilities.tenants.Has(job.tenant)) return {Lack::Kind::kTenant, "", ""};
  if (!job.device.empty() && job.device != capabilities.device)
    return {Lack::Kind::kDevice, "", ""};
  for (auto& [label, value] : RequiredLabels(job)) {
    const auto it = capabilities.labels.find(label);
    if (it == capabilities.labels.end() || it->second != value) {
      return {Lack::Kind::kLabel, label, value};
    }
  }
  const int64_t memory_bytes = capabilities.memory_bytes;
  if (memory_bytes > 0 && memory_bytes < MemoryNeeded(job, task)) {
    return {Lack::Kind::kMemory, "", ""};
  }
  if (task.exceeded_memory_bytes > 0 && memory_bytes <= task.exceeded_memory_bytes) {
    return {Lack::Kind::kMoreMemory, "", ""};
  }
  return {};
}

}  // namespace

RetryDecision DecideRetry(const Policy& policy, const Task& task, FailureClass failure_class,
                          double random) {
  switch (failure_class) {
    case FailureClass::kInvalidInput:
      return {false, absl::ZeroDuration(), "a retry cannot help"};
    case FailureClass::kWorkerLost:
      // The first loss is most likely the machine's fault: run elsewhere at once. From the second
      // on the task itself may be what kills workers: slow down.
      return Bounded(task.num_worker_lost, policy.max_worker_lost,
                     task.num_worker_lost <= 1 ? absl::ZeroDuration()
                                               : Backoff(policy, task.num_worker_lost - 1, random),
                     failure_class);
    case FailureClass::kTransient:
      return Bounded(task.num_transient, policy.max_transient,
                     Backoff(policy, task.num_transient, random), failure_class);
    case FailureClass::kOutOfMemory:
      return Bounded(task.num_out_of_memory, policy.max_out_of_memory, absl::ZeroDuration(),
                     failure_class);
    case FailureClass::kUnknown:
    case FailureClass::kInternal:
      return Bounded(task.num_internal, policy.max_internal, policy.backoff_initial, failure_class);
    case FailureClass::kEnvironment:
      return DecideConfirmation(policy, task, /*others_can_run_it=*/false);
    case FailureClass::kInputLost:
      return {true, absl::ZeroDuration(), ""};  // bounded by the losses of each result
  }
  return {false, absl::ZeroDuration(), "unknown failure class"};
}

RetryDecision DecideConfirmation(const Policy& policy, const Task& task, bool others_can_run_it) {
  if (task.environment_sessions.size() > 1) {
    return {false, absl::ZeroDuration(), "a second worker confirms it"};
  }
  if (task.num_environment >= policy.max_environment) {
    return Bounded(task.num_environment, policy.max_environment, absl::ZeroDuration(),
                   FailureClass::kEnvironment);
  }
  if (others_can_run_it) return {true, absl::ZeroDuration(), ""};
  if (task.num_environment > 1) {
    return {false, absl::ZeroDuration(), "so did a second attempt; no other worker can run it"};
  }
  return {true, std::min(policy.backoff_initial, absl::Seconds(1)), ""};
}

int64_t MemoryNeeded(const Job& job, const Task& task) {
  return task.kind == TaskKind::kPrepare ? 0 : job.layer_memory_bytes;
}

std::vector<std::pair<std::string, std::string>> RequiredLabels(const Job& job) {
  std::vector<std::pair<std::string, std::string>> required;
  for (auto it = job.labels.lower_bound(kRequireLabelPrefix);
       it != job.labels.end() && absl::StartsWith(it->first, kRequireLabelPrefix); ++it) {
    required.emplace_back(it->first.substr(sizeof(kRequireLabelPrefix) - 1), it->second);
  }
  return required;
}

bool Fits(const Job& job, const Task& task, const WorkerCapabilities& capabilities) {
  return FirstLack(job, task, capabilities).kind == Lack::Kind::kNone;
}

std::string Mismatch(const Job& job, const Task& task, const WorkerCapabilities& capabilities) {
  const Lack lack = FirstLack(job, task, capabilities);
  switch (lack.kind) {
    case Lack::Kind::kNone:
      break;
    case Lack::Kind::kTenant:
      return absl::StrCat("the right to work for tenant ", job.tenant);
    case Lack::Kind::kDevice:
      return absl::StrCat("device ", job.device);
    case Lack::Kind::kLabel:
      return absl::StrCat("label ", lack.label, "=", lack.value);
    case Lack::Kind::kMemory:
      return absl::StrCat(FormatBytes(MemoryNeeded(job, task)), " of device memory");
    case Lack::Kind::kMoreMemory:
      return absl::StrCat("more than ", FormatBytes(task.exceeded_memory_bytes),
                          " of device memory, with which task ", task.id, " ran out");
  }
  return "";
}

absl::Duration PresenceWindow(const Policy& policy) {
  return std::max(absl::Seconds(2), 5 * NextCall(policy));
}

absl::Duration NextCall(const Policy& policy) {
  return std::min(absl::Seconds(1), policy.lease_duration / 5);
}

absl::Duration MaxHold(const Policy& policy) {
  const absl::Duration longest = absl::Seconds(20);
  return std::min(longest, policy.lease_duration / 3);
}

}  // namespace uniquanf::server
