#include "server/service/server_metrics.h"

#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace uniquanf::server {
namespace {

const prometheus::Histogram::BucketBoundaries kLatency = {
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30};

std::string Lower(absl::string_view text) { return absl::AsciiStrToLower(text); }

prometheus::Family<prometheus::Gauge>& GaugeFamily(prometheus::Registry* registry, const char* name,
                                                   const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(*registry);
}
prometheus::Family<prometheus::Counter>& CounterFamily(prometheus::Registry* registry,
                                                       const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(*registry);
}
prometheus::Family<prometheus::Histogram>& HistogramFamily(prometheus::Registry* registry,
                                                           const char* name, const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(*registry);
}

prometheus::Family<prometheus::Counter>& RefusedFamily(prometheus::Registry* registry) {
  return CounterFamily(registry, "uniquanf_connections_refused_total",
                       "Connections refused, by the limit that they met");
}

const char* CodeName(grpc::StatusCode code) {
  static constexpr const char* kNames[] = {"ok",
                                           "cancelled",
                                           "unknown",
                                           "invalid_argument",
                                           "deadline_exceeded",
                                           "not_found",
                                           "already_exists",
                                           "permission_denied",
                                           "resource_exhausted",
                                           "failed_precondition",
                                           "aborted",
                                           "out_of_range",
                                           "unimplemented",
                                           "internal",
                                           "unavailable",
                                           "data_loss",
                                           "unauthenticated"};
  return code >= 0 && code <= 16 ? kNames[code] : "unknown";
}

prometheus::Family<prometheus::Counter>& SpotChecks(prometheus::Registry* registry) {
  return CounterFamily(registry, "uniquanf_spot_checks_total",
                       "Layers that another worker ran again, by how the results compare");
}

}  // namespace

ServerMetrics::ServerMetrics(Logger* logger)
    : logger_(logger),
      registry_(std::make_shared<prometheus::Registry>()),
      jobs_(GaugeFamily(registry_.get(), "uniquanf_jobs", "Jobs by state")),
      tasks_(GaugeFamily(registry_.get(), "uniquanf_tasks", "Tasks by state")),
      failures_(CounterFamily(registry_.get(), "uniquanf_task_failures_total",
                              "Failed attempts by class")),
      rpcs_(CounterFamily(registry_.get(), "uniquanf_rpcs_total", "Calls by method and code")),
      rpc_latency_(HistogramFamily(registry_.get(), "uniquanf_rpc_seconds",
                                   "Time of a call, held ones included")),
      unschedulable_(GaugeFamily(registry_.get(), "uniquanf_unschedulable_jobs",
                                 "Jobs whose next task no live worker can run")),
      workers_(GaugeFamily(registry_.get(), "uniquanf_worker_sessions", "Known worker processes")),
      quarantined_(GaugeFamily(registry_.get(), "uniquanf_workers_quarantined",
                               "Worker processes on which job after job fails: they get only what "
                               "no other can run")),
      clock_ahead_(GaugeFamily(registry_.get(), "uniquanf_wall_clock_ahead_seconds",
                               "How far the wall clock is ahead of what the server believes; "
                               "deadlines and deletions wait while this is not 0")),
      garbage_(GaugeFamily(registry_.get(), "uniquanf_garbage_jobs",
                           "Jobs whose working objects are to be deleted")),
      longest_wait_(GaugeFamily(registry_.get(), "uniquanf_oldest_ready_task_seconds",
                                "How long the task has been ready that waits for the longest; 0 "
                                "when none waits. Paused jobs do not count")),
      watch_streams_(
          GaugeFamily(registry_.get(), "uniquanf_watch_streams", "Open WatchJob streams").Add({})),
      recovery_seconds_(GaugeFamily(registry_.get(), "uniquanf_recovery_seconds",
                                    "Time of the last rebuild of the state from the store")
                            .Add({})),
      leases_(CounterFamily(registry_.get(), "uniquanf_leases_total", "Leases given: attempts")
                  .Add({})),
      expired_leases_(
          CounterFamily(registry_.get(), "uniquanf_lease_expiries_total", "Leases that ran out")
              .Add({})),
      tasks_succeeded_(
          CounterFamily(registry_.get(), "uniquanf_tasks_succeeded_total", "Finished tasks")
              .Add({})),
      results_lost_(CounterFamily(registry_.get(), "uniquanf_results_lost_total",
                                  "Finished tasks that run again since their results were gone")
                        .Add({})),
      checks_same_(SpotChecks(registry_.get()).Add({{"result", "same"}})),
      checks_different_(SpotChecks(registry_.get()).Add({{"result", "different"}})),
      checks_abandoned_(SpotChecks(registry_.get()).Add({{"result", "abandoned"}})),
      clock_jumps_(CounterFamily(registry_.get(), "uniquanf_clock_jumps_total",
                                 "Times that the wall clock ran ahead of what the server believes")
                       .Add({})),
      commit_failures_(CounterFamily(registry_.get(), "uniquanf_commit_failures_total",
                                     "Transactions that failed or could not be confirmed")
                           .Add({})),
      lease_latency_(HistogramFamily(registry_.get(), "uniquanf_lease_latency_seconds",
                                     "From a task being ready to its lease")
                         .Add({}, kLatency)),
      commit_latency_(HistogramFamily(registry_.get(), "uniquanf_commit_seconds",
                                      "Time of a durable transaction")
                          .Add({}, kLatency)),
      commit_events_(HistogramFamily(registry_.get(), "uniquanf_commit_events",
                                     "Events that share a transaction")
                         .Add({}, prometheus::Histogram::BucketBoundaries{1, 2, 5, 10, 50, 100, 500,
                                                                          1000, 5000})),
      connections_(
          GaugeFamily(registry_.get(), "uniquanf_connections", "Open connections to the gRPC port")
              .Add({})),
      connections_accepted_(CounterFamily(registry_.get(), "uniquanf_connections_accepted_total",
                                          "Connections that the gRPC port took")
                                .Add({})),
      connections_refused_total_(RefusedFamily(registry_.get()).Add({{"limit", "all"}})),
      connections_refused_peer_(RefusedFamily(registry_.get()).Add({{"limit", "peer"}})),
      failed_accepts_(CounterFamily(registry_.get(), "uniquanf_failed_accepts_total",
                                    "Times that the gRPC port had no file descriptor left")
                          .Add({})) {
  // From the start and at 0: a counter that appears at 1 has not increased, for an alert.
  for (int i = 1; i <= kNumFailureClasses; ++i) {
    failures_.Add({{"class", Lower(FailureClassName(static_cast<FailureClass>(i)))}});
  }
}

void ServerMetrics::SetStateGauge(prometheus::Family<prometheus::Gauge>* family, double value,
                                  const std::string& state) {
  prometheus::Gauge*& gauge = state_gauges_[{family, state}];
  if (gauge == nullptr) {
    gauge = state.empty() ? &family->Add({}) : &family->Add({{"state", state}});
  }
  gauge->Set(value);
}

void ServerMetrics::SetGauges(const State& state) {
  for (int i = 1; i <= kNumJobStates; ++i) {
    SetStateGauge(&jobs_, static_cast<double>(state.num_jobs[i]),
                  Lower(JobStateName(static_cast<JobState>(i))));
  }
  for (int i = 1; i <= kNumTaskStates; ++i) {
    SetStateGauge(&tasks_, static_cast<double>(state.num_tasks[i]),
                  Lower(TaskStateName(static_cast<TaskState>(i))));
  }
  SetStateGauge(&unschedulable_, static_cast<double>(state.num_unschedulable));
  SetStateGauge(&workers_, static_cast<double>(state.sessions.size()));
  SetStateGauge(&garbage_, static_cast<double>(state.garbage.size()));
  SetStateGauge(&quarantined_, static_cast<double>(state.num_quarantined));
  SetStateGauge(&clock_ahead_, absl::ToDoubleSeconds(state.clock.lead));
}

void ServerMetrics::OnStandBy() {
  for (const auto& [key, gauge] : state_gauges_) key.first->Remove(gauge);
  state_gauges_.clear();
}

void ServerMetrics::SetConnections(const ConnectionCounts& counts) {
  absl::MutexLock lock(&mutex_);
  const auto add = [](prometheus::Counter* counter, int64_t now, int64_t before) {
    if (now > before) counter->Increment(static_cast<double>(now - before));
  };
  connections_.Set(static_cast<double>(counts.num_open));
  add(&connections_accepted_, counts.num_accepted, last_.num_accepted);
  add(&connections_refused_total_, counts.num_refused_total, last_.num_refused_total);
  add(&connections_refused_peer_, counts.num_refused_peer, last_.num_refused_peer);
  add(&failed_accepts_, counts.num_failed_accepts, last_.num_failed_accepts);
  last_ = counts;
}

void ServerMetrics::SetTlsNotAfter(absl::Time time) {
  if (time == absl::InfiniteFuture()) return;
  prometheus::BuildGauge()
      .Name("uniquanf_tls_not_after_seconds")
      .Help("When the server's certificate expires (Unix time).")
      .Register(*registry_)
      .Add({})
      .Set(absl::ToDoubleSeconds(time - absl::UnixEpoch()));
}

void ServerMetrics::SetWatchStreams(int64_t num_streams) {
  watch_streams_.Set(static_cast<double>(num_streams));
}

void ServerMetrics::OnRecovered(const State& state, absl::Duration duration) {
  recovery_seconds_.Set(absl::ToDoubleSeconds(duration));
  SetGauges(state);
  SetStateGauge(&longest_wait_, 0);
  logger_->Info("state loaded",
                {{"jobs", static_cast<int64_t>(state.jobs.size())},
                 {"tasks_leased", state.num_tasks[static_cast<int>(TaskState::kLeased)]},
                 {"epoch", state.epoch},
                 {"seconds", absl::ToDoubleSeconds(duration)}});
}

void ServerMetrics::OnCommit(size_t num_events, bool durable, absl::Duration duration,
                             const State& state, const Edits& edits) {
  if (durable) {
    commit_latency_.Observe(absl::ToDoubleSeconds(duration));
    commit_events_.Observe(static_cast<double>(num_events));
  }
  leases_.Increment(static_cast<double>(edits.num_leases));
  expired_leases_.Increment(static_cast<double>(edits.num_expired_leases));
  tasks_succeeded_.Increment(static_cast<double>(edits.num_tasks_succeeded));
  results_lost_.Increment(static_cast<double>(edits.num_results_lost));
  LogHealth(state, edits);
  NoteChecks(state, edits);
  WatchClock(state);
  for (const double seconds : edits.lease_latency_seconds) lease_latency_.Observe(seconds);
  for (const FailureClass failure : edits.failures) {
    failures_.Add({{"class", Lower(FailureClassName(failure))}}).Increment();
  }
  if (durable || num_events == 0) SetGauges(state);
  WatchQueue(state);
  for (const TaskRef& ref : edits.tasks) {
    const Task* task = state.FindTask(ref);
    if (task == nullptr) continue;
    const std::string& job = state.jobs.at(ref.job).job.id;
    if (task->state == TaskState::kLeased) {
      logger_->Debug(
          "task leased",
          {{"job", job}, {"task", task->id}, {"attempt", task->attempt}, {"worker", task->worker}});
    } else if (task->state == TaskState::kSucceeded) {
      logger_->Debug(
          "task succeeded",
          {{"job", job}, {"task", task->id}, {"attempt", task->attempt}, {"worker", task->worker}});
    } else if (!task->failures.empty() && task->failures.back().attempt == task->attempt &&
               task->lease != LeaseStatus::kActive && !edits.failures.empty()) {
      const TaskFailure& failure = task->failures.back();
      logger_->Warning("task attempt failed",
                       {{"job", job},
                        {"task", task->id},
                        {"attempt", task->attempt},
                        {"worker", task->worker},
                        {"class", Lower(FailureClassName(failure.failure_class))},
                        {"reason", failure.reason},
                        {"message", failure.message}});
    }
  }
}

void ServerMetrics::NoteChecks(const State& state, const Edits& edits) {
  for (const CheckResult& check : edits.checks) {
    switch (check.verdict) {
      case CheckVerdict::kSame:
        checks_same_.Increment();
        break;
      case CheckVerdict::kAbandoned:
        checks_abandoned_.Increment();
        break;
      case CheckVerdict::kDifferent: {
        checks_different_.Increment();
        const auto job = state.jobs.find(check.task.job);
        const Task* task = state.FindTask(check.task);
        logger_->Error(
            "two workers of one kind made different results of a layer: one of them lies, or its "
            "machine is broken",
            {{"job", job == state.jobs.end() ? "" : job->second.job.id},
             {"task", task == nullptr ? "" : task->id},
             {"worker", check.worker},
             {"sha256", check.result_sha256},
             {"checked_by", check.checker},
             {"checked_sha256", check.checked_sha256}});
        break;
      }
    }
  }
}

void ServerMetrics::LogHealth(const State& state, const Edits& edits) {
  for (const std::string& id : edits.quarantined) {
    const auto it = state.sessions.find(id);
    if (it == state.sessions.end()) continue;
    logger_->Warning("worker quarantined: it gets only what no other can run",
                     {{"worker", it->second.worker},
                      {"process", WorkerProcessName(it->second)},
                      {"times", it->second.num_quarantines},
                      {"message", it->second.quarantine_reason}});
  }
  for (const std::string& worker : edits.shared_names) {
    logger_->Warning("several worker processes call under one name; give each its own --name",
                     {{"worker", worker}});
  }
  for (const TaskRef& ref : edits.results_lost) {
    const Task* task = state.FindTask(ref);
    if (task == nullptr) continue;
    logger_->Warning("the result of a finished task is gone; the task runs again",
                     {{"job", state.jobs.at(ref.job).job.id},
                      {"task", task->id},
                      {"sha256", task->lost_sha256}});
  }
}

void ServerMetrics::WatchClock(const State& state) {
  const double ahead = absl::ToDoubleSeconds(state.clock.lead);
  if (clock_was_ahead_ == (ahead > 0)) return;
  SetStateGauge(&clock_ahead_, ahead);
  clock_was_ahead_ = ahead > 0;
  if (clock_was_ahead_) {
    clock_jumps_.Increment();
    logger_->Warning(
        "the wall clock is ahead of the time that passed; deadlines and deletions wait until that "
        "has lasted or an operator confirms it",
        {{"ahead_seconds", ahead},
         {"settle_time", absl::FormatDuration(state.policy.clock_settle_time)}});
  } else {
    logger_->Info("the wall clock is believed again");
  }
}

// Once a second: tasks of paused jobs may have to be passed over.
void ServerMetrics::WatchQueue(const State& state) {
  if (state.last_tick - watched_queue_at_ < absl::Seconds(1)) return;
  watched_queue_at_ = state.last_tick;
  SetStateGauge(&longest_wait_, absl::ToDoubleSeconds(LongestWait(state)));
}

void ServerMetrics::OnCommitFailed(const absl::Status& status) {
  commit_failures_.Increment();
  logger_->Error("state could not be written", {{"message", std::string(status.message())}});
}

void ServerMetrics::OnJobState(const Job& job, std::optional<JobState> before) {
  const bool failed = job.state == JobState::kFailed;
  logger_->Log(failed ? LogLevel::kWarning : LogLevel::kInfo, "job state",
               {{"job", job.id},
                {"state", JobStateName(job.state)},
                {"tenant", job.tenant},
                {"reason", failed && job.error ? job.error->reason : std::string()},
                {"message", failed && job.error ? job.error->message : std::string()}});
}

void ServerMetrics::OnCallDone(std::string_view name, const grpc::Status& status,
                               absl::Duration latency) {
  const std::string method(name);
  rpcs_.Add({{"method", method}, {"code", CodeName(status.error_code())}}).Increment();
  rpc_latency_.Add({{"method", method}}, kLatency).Observe(absl::ToDoubleSeconds(latency));
}

void ServerMetrics::OnDenied(const std::string& reason) {
  CounterFamily(registry_.get(), "uniquanf_auth_denied_total",
                "Calls refused to who made them, by reason")
      .Add({{"reason", reason}})
      .Increment();
}

void ServerMetrics::SetAccess(const AccessControl::Health& health) {
  GaugeFamily(registry_.get(), "uniquanf_policy_rejected",
              "1 while the policy file is bad and the one before it is in use")
      .Add({})
      .Set(health.policy_rejected ? 1 : 0);
  GaugeFamily(registry_.get(), "uniquanf_token_key_failures",
              "Issuers of tokens whose keys could not be read the last time")
      .Add({})
      .Set(health.num_key_failures);
}

void ServerMetrics::SetAuditFailures(int64_t num_failures) {
  absl::MutexLock lock(&mutex_);
  CounterFamily(registry_.get(), "uniquanf_audit_failures_total",
                "Batches of the audit log that could not be written, and lines that were given up")
      .Add({})
      .Increment(static_cast<double>(num_failures - last_audit_failures_));
  last_audit_failures_ = num_failures;
}

void ServerMetrics::SetHttp(const HttpCounts& counts, int num_streams) {
  const auto set = [this](const char* name, const char* help, double value) {
    GaugeFamily(registry_.get(), name, help).Add({}).Set(value);
  };
  set("uniquanf_http_connections", "open connections to the HTTP address",
      static_cast<double>(counts.num_open));
  set("uniquanf_http_streams", "streams of events open at the HTTP address", num_streams);
}

void ServerMetrics::SetInsecure(bool insecure) {
  GaugeFamily(registry_.get(), "uniquanf_insecure",
              "1 where everybody who reaches the gRPC port may do everything")
      .Add({})
      .Set(insecure ? 1 : 0);
}

}  // namespace uniquanf::server
