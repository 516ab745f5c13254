// A scheduler core with workers that do as the test says. No thread, no clock.
#ifndef UNIQUANF_TESTS_UNIT_SERVER_CORE_FIXTURE_H_
#define UNIQUANF_TESTS_UNIT_SERVER_CORE_FIXTURE_H_

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "common/base/status.h"
#include "server/core/apply.h"

namespace uniquanf::server {

class CoreTest : public ::testing::Test {
 protected:
  static WorkerCapabilities Cpu() {
    WorkerCapabilities cpu;
    cpu.device = "cpu";
    cpu.memory_bytes = int64_t{8} << 30;
    cpu.num_slots = 1;
    return cpu;
  }
  struct Worker {
    std::string name, session;
    WorkerCapabilities capabilities = Cpu();
    int64_t sequence = 0;
    int num_slots = 1;
    bool draining = false;
    std::vector<LeaseReport> reports;
    std::vector<CachedActivations> cached;
  };

  CoreTest() {
    policy_.lease_duration = absl::Seconds(10);
    Start(Policy(policy_));
  }
  void Start(const Policy& policy) {
    policy_ = policy;
    state_ = *Rebuild(policy, {}, 1, 1, now());
  }
  void TearDown() override { EXPECT_TRUE(CheckInvariants(state_).ok()) << CheckInvariants(state_); }

  Now now() const { return {absl::FromUnixSeconds(1700000000) + mono_ + wall_jump_, mono_}; }
  Outcome Do(const Event& event) {
    const Outcome outcome = Apply(&state_, event, now(), &edits_);
    const absl::Status status = CheckInvariants(state_);
    EXPECT_TRUE(status.ok()) << status;
    return outcome;
  }
  void Pass(absl::Duration duration) {
    // In steps, as the runtime does: a long gap would look like a server that stood still.
    while (duration > absl::ZeroDuration()) {
      const absl::Duration step = std::min(duration, absl::Seconds(1));
      mono_ += step;
      duration -= step;
      Do(TickEvent{});
    }
  }
  Outcome Create(const std::string& id, const std::string& tenant = "t", int priority = 0,
                 const std::string& device = "") {
    CreateJobEvent event;
    event.job.id = id;
    event.job.uid = absl::StrCat("uid-", id, "-", ++num_uids_);
    event.job.tenant = tenant;
    event.job.priority = priority;
    event.job.device = device;
    return Do(event);
  }
  Worker NewWorker(const std::string& name) {
    Worker worker;
    worker.name = name;
    worker.session = absl::StrCat(name, "-", ++num_uids_);
    return worker;
  }
  Outcome Call(Worker* worker, bool may_wait = false) {
    SynchronizeEvent event;
    event.session = worker->session;
    event.worker = worker->name;
    event.sequence = ++worker->sequence;
    event.capabilities = worker->capabilities;
    event.draining = worker->draining;
    event.leases = worker->reports;
    event.cached = worker->cached;
    int busy = 0;
    for (const LeaseReport& r : worker->reports) busy += r.kind == LeaseReport::Kind::kRunning;
    event.num_free_slots = worker->num_slots - busy;
    event.may_wait = may_wait;
    return Do(event);
  }
  // Calls, and takes up what it is given. Finished reports are dropped when acknowledged or lost.
  std::vector<Assignment> Synchronize(Worker* worker) {
    EXPECT_TRUE(Call(worker).status.ok());
    return Hear(worker);
  }
  std::vector<Assignment> Hear(Worker* worker) {
    const SynchronizeReply reply = BuildReply(state_, worker->session);
    actions_.clear();
    for (const LeaseDirective& d : reply.directives) {
      actions_[d.lease_id] = d.action;
      if (d.action == LeaseAction::kAcknowledged || d.action == LeaseAction::kLost) {
        std::erase_if(worker->reports, [&](const auto& r) { return r.lease_id == d.lease_id; });
      }
    }
    for (const Assignment& a : reply.assignments) {
      LeaseReport report;
      report.lease_id = a.lease_id;
      report.attempt = a.attempt;
      report.job = a.job;
      report.task = a.task;
      report.token_sha256 = Sha256Hex(a.lease_token);
      worker->reports.push_back(report);
    }
    return reply.assignments;
  }
  static void Succeed(LeaseReport* report, int num_layers = 2, bool independent = false,
                      int64_t memory_bytes = 0, const std::string& device = "cpu") {
    report->kind = LeaseReport::Kind::kSucceeded;
    report->outcome.result_sha256 = Sha256Hex(report->task);
    report->outcome.num_layers = num_layers;
    report->outcome.layers_independent = independent;
    report->outcome.device = device;
    report->outcome.layer_memory_bytes = memory_bytes;
    if (report->task == "finalize") report->outcome.artifact = ArtifactRef{"uri", "sha", 1};
  }
  static void Fail(LeaseReport* report, FailureClass failure_class) {
    report->kind = LeaseReport::Kind::kFailed;
    report->failure = {failure_class, "REASON", "what went wrong", 0, "", {}};
  }
  // Finishes everything the worker holds and gets the next.
  std::vector<Assignment> FinishAndSynchronize(Worker* worker, int num_layers = 2,
                                               bool independent = false, int64_t memory_bytes = 0) {
    for (LeaseReport& report : worker->reports) {
      Succeed(&report, num_layers, independent, memory_bytes, worker->capabilities.device);
    }
    return Synchronize(worker);
  }
  // Another server process on what is stored: the edits have been written.
  void Restart() {
    StoredState stored;
    for (const auto& [seq, entry] : state_.jobs) {
      stored.jobs.push_back(entry.job);
      for (size_t i = 0; i < entry.tasks.size(); ++i) {
        stored.tasks.push_back({{seq, static_cast<int32_t>(i)}, entry.tasks[i]});
      }
    }
    for (const auto& [worker, drain] : state_.drains) stored.drains.push_back(drain);
    absl::StatusOr<State> state = Rebuild(policy_, stored, state_.epoch + 1, 1, now());
    ASSERT_TRUE(state.ok()) << state.status();
    state_ = *std::move(state);
    EXPECT_TRUE(CheckInvariants(state_).ok()) << CheckInvariants(state_);
  }
  const Job& job(const std::string& id) { return state_.FindJob(id)->job; }
  const Task& task(const std::string& id, const std::string& task) {
    const JobEntry* entry = state_.FindJob(id);
    return entry->tasks[entry->task_of_id.at(task)];
  }

  Policy policy_;
  State state_;
  Edits edits_;
  absl::Duration mono_ = absl::Seconds(100);
  absl::Duration wall_jump_;
  int num_uids_ = 0;
  std::map<std::string, LeaseAction> actions_;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_TESTS_UNIT_SERVER_CORE_FIXTURE_H_
