// The pure scheduler core against a simulated world: a network that loses, repeats, reorders and
// delays, workers that crash, hang and return late, a store whose commits fail, or succeed and are
// reported as failed, and a server that dies at any point. Every run is replayed by its seed.
//
//   UNIQUANF_SIMULATION_EVENTS  events in all (default 200,000)
//   UNIQUANF_SIMULATION_SEED    the first seed (default 1); every world runs 20,000 events
#include <gtest/gtest.h>

#include <cstdlib>
#include <deque>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/digest.h"
#include "server/core/apply.h"
#include "server/store/job_store.h"
#include "server/store/record_codec.h"

namespace uniquanf::server {
namespace {

int64_t EnvOr(const char* name, int64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtoll(text, nullptr, 10);
}

// Keeps encoded records, as a real store does, so that what is not encoded is really lost.
class MemoryStore {
 public:
  enum class Fault { kNone, kFail, kDoneButFail };

  uint64_t Open() { return ++epoch_; }
  LoadedState Load() const {
    LoadedState loaded;
    loaded.sequence = sequence_;
    for (const auto& [seq, bytes] : jobs_) loaded.state.jobs.push_back(*DecodeJob(bytes));
    for (const auto& [ref, bytes] : tasks_) loaded.state.tasks.push_back({ref, *DecodeTask(bytes)});
    loaded.state.garbage.assign(garbage_.begin(), garbage_.end());
    for (const auto& [worker, drain] : drains_) loaded.state.drains.push_back(drain);
    return loaded;
  }
  absl::Status Commit(const WriteBatch& batch, Fault fault) {
    if (batch.epoch != epoch_ || batch.expected_sequence != sequence_) {
      return absl::AbortedError("fenced");
    }
    if (fault == Fault::kFail) return absl::UnavailableError("injected");
    ++sequence_;
    for (const uint64_t seq : batch.deleted_jobs) {
      jobs_.erase(seq);
      tasks_.erase(tasks_.lower_bound({seq, 0}), tasks_.lower_bound({seq + 1, 0}));
    }
    for (const Job& job : batch.jobs) jobs_[job.seq] = EncodeJob(job);
    for (const StoredTask& task : batch.tasks) tasks_[task.ref] = EncodeTask(task.task);
    for (const std::string& uid : batch.deleted_garbage) garbage_.erase(uid);
    for (const std::string& uid : batch.garbage) garbage_.insert(uid);
    for (const std::string& worker : batch.deleted_drains) drains_.erase(worker);
    for (const WorkerDrain& drain : batch.drains) drains_[drain.worker] = drain;
    return fault == Fault::kDoneButFail ? absl::UnavailableError("injected, but done")
                                        : absl::OkStatus();
  }

  std::map<uint64_t, std::string> jobs_;
  std::map<TaskRef, std::string> tasks_;

 private:
  uint64_t epoch_ = 0, sequence_ = 0;
  std::set<std::string> garbage_;
  std::map<std::string, WorkerDrain> drains_;
};

struct SimLease {
  Assignment assignment;
  absl::Duration expires_at;
  LeaseReport report;
  bool final = false;
};

struct SimWorker {
  std::string name, session;
  int64_t sequence = 0, last_reply = -1;
  int num_slots = 1;
  WorkerCapabilities capabilities;
  std::map<std::string, SimLease> leases;
  std::set<std::string> forgotten;
  bool draining = false;
  bool sick = false;  // sees nothing of what jobs name
  absl::Duration silent_until;
};

struct Message {
  enum Kind { kRequest, kReply } kind = kRequest;
  size_t worker = 0;
  absl::Duration sent_at;
  SynchronizeEvent request;
  std::string session;
  int64_t sequence = 0;
  SynchronizeReply reply;
};

class World {
 public:
  explicit World(uint64_t seed) : random_(seed) {
    policy_.lease_duration = absl::Seconds(5);
    policy_.max_worker_lost = 4;
    policy_.max_transient = 4;
    policy_.stall_timeout = absl::Seconds(60);
    policy_.quarantine_initial = absl::Seconds(5);
    policy_.quarantine_max = absl::Seconds(20);
    policy_.clock_settle_time = kSettleTime;
    if (Chance(0.5)) policy_.tasks_per_slice = 1 + static_cast<int>(Draw(4));
    if (Chance(0.3)) policy_.max_running_jobs_per_tenant = 2;
    if (Chance(0.3)) policy_.max_queued_jobs_per_tenant = 5;
    for (int i = 0; i < 6; ++i) {
      SimWorker worker;
      worker.name = absl::StrCat("w", i);
      worker.num_slots = 1 + i % 2;
      worker.capabilities = {
          i % 3 == 2 ? "cuda" : "cpu", "", int64_t{8} << (30 + i % 2), 1, {}, 0, {}};
      workers_.push_back(worker);
      RestartWorker(&workers_.back());
    }
    if (Chance(0.5)) workers_[Draw(workers_.size())].sick = true;
    RestartServer();
  }

  // Empty, or the first violation.
  std::string Run(int64_t num_events) {
    for (num_events_ = 0; num_events_ < num_events && violation_.empty(); ++num_events_) Step();
    if (violation_.empty()) Settle();
    return violation_;
  }
  std::string Summary() const {
    return absl::StrCat("jobs created ", num_created_, ", succeeded ", num_succeeded_, ", failed ",
                        num_failed_, ", server restarts ", num_restarts_, ", acknowledged ",
                        num_acknowledged_, ", lost ", num_lost_);
  }

 private:
  static constexpr absl::Duration kSettleTime = absl::Seconds(60);

  uint64_t Draw(uint64_t n) { return random_() % n; }
  bool Chance(double p) { return (random_() >> 11) * 0x1.0p-53 < p; }
  Now now() const { return {absl::FromUnixSeconds(1700000000) + mono_ + skew_, mono_}; }
  void Violate(const std::string& what) {
    if (violation_.empty()) violation_ = absl::StrCat("event ", num_events_, ": ", what);
  }

  void RestartServer() {
    ++num_restarts_;
    LoadedState loaded = store_.Load();
    // Another moment, another process: its monotonic clock has gone on.
    const uint64_t epoch = store_.Open();
    absl::StatusOr<State> state = Rebuild(policy_, loaded.state, epoch, epoch, now());
    if (!state.ok()) return Violate(absl::StrCat("rebuild: ", state.status().ToString()));
    state_ = *std::move(state);
    skews_ = {{mono_, skew_}};
    sequence_ = loaded.sequence;
    edits_ = {};
    parked_.clear();
    // The connections died with the old process, and what was under way in them.
    std::erase_if(network_, [](const Message& m) { return m.kind == Message::kRequest; });
    for (const auto& [seq, uid] : committed_jobs_) {
      const auto it = state_.jobs.find(seq);
      if (it == state_.jobs.end() || it->second.job.uid != uid) {
        Violate(absl::StrCat("job ", uid, " was committed and is gone"));
      }
    }
  }

  void RestartWorker(SimWorker* worker) {
    // A process's first call is not overtaken by its successor's: seconds lie between them.
    std::erase_if(network_, [worker](const Message& m) {
      return m.kind == Message::kRequest && m.session == worker->session && m.sequence == 1;
    });
    worker->session = absl::StrCat(worker->name, "-s", ++num_sessions_);
    worker->leases.clear();
    worker->forgotten.clear();
    worker->sequence = 0;
    worker->last_reply = -1;
    worker->draining = false;
    worker->silent_until = mono_;
  }

  // One batch: events applied, committed, answered.
  bool Commit() {
    MemoryStore::Fault fault = MemoryStore::Fault::kNone;
    if (!settling_ && Chance(0.01)) fault = MemoryStore::Fault::kFail;
    if (!settling_ && Chance(0.01)) fault = MemoryStore::Fault::kDoneButFail;
    if (edits_.durable()) {
      WriteBatch batch = MakeBatch(state_, edits_);
      batch.expected_sequence = sequence_;
      const absl::Status status = store_.Commit(batch, fault);
      if (!status.ok()) {
        if (fault == MemoryStore::Fault::kDoneButFail) NoteCommitted(batch);
        RestartServer();
        return false;
      }
      ++sequence_;
      NoteCommitted(batch);
      if (!settling_ && Chance(0.005)) {  // dies after the commit, before any answer
        RestartServer();
        return false;
      }
    }
    const std::set<std::string> wake = edits_.wake;
    edits_ = {};
    for (const std::string& session : wake) {
      const auto it = parked_.find(session);
      if (it == parked_.end()) continue;
      Message message = it->second;
      parked_.erase(it);
      SendReply(message);
    }
    return true;
  }

  void NoteCommitted(const WriteBatch& batch) {
    std::map<uint64_t, std::string> uids;
    for (const uint64_t seq : batch.deleted_jobs) committed_jobs_.erase(seq);
    for (const Job& job : batch.jobs) {
      uids[job.seq] = job.uid;
      committed_jobs_[job.seq] = job.uid;
      const bool was_final = final_.count(job.uid) > 0;
      if (IsFinal(job.state) && !was_final) {
        final_.insert(job.uid);
        if (job.state == JobState::kSucceeded) ++num_succeeded_;
        if (job.state == JobState::kFailed) ++num_failed_;
      } else if (!IsFinal(job.state) && was_final) {
        if (retried_.count(job.uid) == 0) Violate("a final job came back without a retry");
        final_.erase(job.uid);
      }
      if (job.version <= versions_[job.uid]) Violate("a job's version did not grow");
      versions_[job.uid] = job.version;
    }
    for (const StoredTask& stored : batch.tasks) {
      const std::string key = absl::StrCat(uids[stored.ref.job], "/", stored.task.id);
      const auto it = completed_.find(key);
      if (stored.task.state == TaskState::kSucceeded) {
        if (it == completed_.end()) {
          completed_[key] = stored.task.lease_id;
        } else if (it->second != stored.task.lease_id) {
          Violate(absl::StrCat(key, " was completed twice"));
        }
      } else if (it != completed_.end()) {
        // Only when its result is gone.
        if (ever_lost_.count(stored.task.lost_sha256) == 0) {
          Violate(absl::StrCat(key, " was completed and then undone"));
        }
        completed_.erase(it);
      }
      if (stored.task.state == TaskState::kFailed && !stored.task.failures.empty() &&
          stored.task.failures.back().failure_class == FailureClass::kEnvironment) {
        CheckConfirmed(key, stored.task);
      }
      if (stored.task.attempt < attempts_[key]) Violate(absl::StrCat(key, " lost an attempt"));
      if (stored.task.state == TaskState::kLeased && stored.task.attempt > attempts_[key]) {
        CheckFence(key, stored.task);
      }
      attempts_[key] = stored.task.attempt;
    }
  }

  // What a job names is missing for everybody only when a second process said so, or the only one
  // did so twice.
  void CheckConfirmed(const std::string& key, const Task& task) {
    std::set<std::string> sessions(task.environment_sessions.begin(),
                                   task.environment_sessions.end());
    if (sessions.size() < 2 && task.num_environment < 2) {
      Violate(absl::StrCat(key, " failed for good by one worker's word"));
    }
  }

  // The latest wall-clock time that may be believed: an hour ahead counts when it has lasted.
  absl::Time LatestBelievable() const {
    absl::Duration least = skew_;
    for (auto it = skews_.rbegin(); it != skews_.rend(); ++it) {
      least = std::min(least, it->second);
      if (mono_ - it->first >= kSettleTime) break;  // it held at the beginning of that time
    }
    return absl::FromUnixSeconds(1700000000) + mono_ + least + policy_.clock_tolerance +
           absl::Seconds(1);  // what a slewed clock may gain meanwhile
  }

  // Nothing ends by a clock that has only just jumped.
  void Tick() {
    struct End {
      std::optional<absl::Time> deadline, deletion;
      std::optional<absl::Duration> time_to_live;
    };
    std::map<uint64_t, End> ends;
    for (const auto& [seq, entry] : state_.jobs) {
      const Job& job = entry.job;
      End& end = ends[seq];
      if (!IsFinal(job.state)) end.deadline = job.deadline;
      end.time_to_live = job.time_to_live;
      if (IsFinal(job.state) && job.time_to_live.has_value()) {
        end.deletion = *job.end_time + *job.time_to_live;
      }
    }
    if (skews_.back().second != skew_) skews_.push_back({mono_, skew_});
    Apply(&state_, TickEvent{}, now(), &edits_);
    const absl::Time latest = LatestBelievable();
    for (const auto& [seq, end] : ends) {
      const auto it = state_.jobs.find(seq);
      if (it == state_.jobs.end()) {
        // One that ended in this very tick, by its deadline or by losing its last worker, may have
        // outlived its time to live at once.
        std::optional<absl::Time> due = end.deletion;
        if (!due.has_value() && end.time_to_live.has_value()) {
          due = now().wall + *end.time_to_live;
        }
        if (!due.has_value() || *due > latest) Violate("deleted too early");
      } else if (end.deadline.has_value() && it->second.job.error.has_value() &&
                 it->second.job.error->reason == "DEADLINE" && *end.deadline > latest) {
        Violate("failed before its deadline");
      }
    }
  }

  // Somebody else speaks for a worker's session.
  void ForgeSequence(const SimWorker& worker) {
    const auto it = state_.sessions.find(worker.session);
    if (it == state_.sessions.end() || !it->second.has_called) return;
    SynchronizeEvent forged;
    forged.session = worker.session;
    forged.worker = worker.name;
    forged.sequence = it->second.sequence + (int64_t{2} << 20) + static_cast<int64_t>(Draw(1000));
    if (Apply(&state_, forged, now(), &edits_).status.ok()) Violate("took a forged sequence");
  }

  // An object of a finished task disappears.
  void LoseObject() {
    for (const auto& [seq, entry] : state_.jobs) {
      if (entry.job.state == JobState::kSucceeded || !Chance(0.2)) continue;
      const Task& task = entry.tasks[Draw(entry.tasks.size())];
      if (task.state != TaskState::kSucceeded) continue;
      lost_objects_.insert(task.result_sha256);
      ever_lost_.insert(task.result_sha256);
    }
  }

  // A fresh lease: nobody else may still trust an older one.
  void CheckFence(const std::string& key, const Task& task) {
    for (const SimWorker& worker : workers_) {
      for (const auto& [id, lease] : worker.leases) {
        if (lease.final || lease.expires_at <= mono_ || id == task.lease_id) continue;
        const std::string held = absl::StrCat(lease.assignment.job_uid, "/", lease.assignment.task);
        if (held == key && retried_.count(lease.assignment.job_uid) == 0 &&
            lost_on_purpose_.count(id) == 0) {
          Violate(absl::StrCat(key, " is leased as ", task.lease_id, " while ", worker.session,
                               " trusts ", id, " until ", absl::FormatDuration(lease.expires_at),
                               ", now ", absl::FormatDuration(mono_)));
        }
      }
    }
  }

  void SendReply(const Message& request) {
    Message message;
    message.kind = Message::kReply;
    message.worker = request.worker;
    message.session = request.session;
    message.sequence = request.sequence;
    message.sent_at = request.sent_at;
    message.reply = BuildReply(state_, request.session);
    if (message.reply.directives.size() != request.request.leases.size()) {
      return Violate("a reply does not answer every report");
    }
    for (size_t i = 0; i < message.reply.directives.size(); ++i) {
      const LeaseDirective& directive = message.reply.directives[i];
      const LeaseReport& report = request.request.leases[i];
      if (directive.action == LeaseAction::kAcknowledged &&
          report.kind == LeaseReport::Kind::kSucceeded) {
        // The promise of an acknowledgement: it is in the store.
        const JobEntry* entry = state_.FindJob(report.job);
        const TaskRef ref{entry->job.seq, entry->task_of_id.at(report.task)};
        const absl::StatusOr<Task> stored = DecodeTask(store_.tasks_[ref]);
        if (!stored.ok() || stored->lease_id != report.lease_id ||
            (stored->state != TaskState::kSucceeded && stored->num_internal == 0 &&
             stored->lost_sha256.empty())) {
          Violate(absl::StrCat("acknowledged ", report.lease_id, " is not in the store"));
        }
      }
    }
    Send(std::move(message));
  }

  void Send(Message message) {
    if (!settling_ && Chance(0.03)) return;  // lost
    if (!settling_ && Chance(0.03)) network_.push_back(message);
    network_.push_back(std::move(message));
  }

  void WorkerCalls(SimWorker* worker) {
    if (mono_ < worker->silent_until) return;
    Message message;
    message.worker = static_cast<size_t>(worker - workers_.data());
    message.session = worker->session;
    message.sequence = ++worker->sequence;
    message.sent_at = mono_;
    SynchronizeEvent& e = message.request;
    e.session = worker->session;
    e.worker = worker->name;
    e.sequence = worker->sequence;
    e.capabilities = worker->capabilities;
    e.draining = worker->draining;
    int busy = 0;
    for (auto& [id, lease] : worker->leases) {
      if (!lease.final) ++busy;
      e.leases.push_back(lease.report);
    }
    e.num_free_slots = std::max(0, worker->num_slots - busy);
    if (Chance(0.3)) e.cached.push_back({absl::StrCat("j", Draw(20)), static_cast<int>(Draw(4))});
    e.may_wait = Chance(0.5);
    Send(std::move(message));
  }

  void WorkerWorks(SimWorker* worker) {
    for (auto it = worker->leases.begin(); it != worker->leases.end();) {
      SimLease& lease = it->second;
      if (!lease.final && lease.expires_at <= mono_) {  // the worker's own fence
        it = worker->leases.erase(it);
        continue;
      }
      if (!lease.final) Advance(worker, &lease);
      ++it;
    }
  }

  void Advance(SimWorker* worker, SimLease* lease) {
    LeaseReport& report = lease->report;
    const Assignment& a = lease->assignment;
    const double draw = (random_() >> 11) * 0x1.0p-53;
    if (worker->sick && !settling_) {
      lease->final = true;
      report.kind = LeaseReport::Kind::kFailed;
      report.failure = {FailureClass::kEnvironment, "MODEL_NOT_FOUND", "m", 0, "", {}};
      return;
    }
    std::vector<std::string> inputs = a.layer_sha256;
    if (a.kind != TaskKind::kPrepare) inputs.push_back(a.plan_sha256);
    std::erase_if(inputs, [this](const std::string& i) { return lost_objects_.count(i) == 0; });
    if (!inputs.empty() && Chance(0.7)) {  // else it has read them before
      lease->final = true;
      report.kind = LeaseReport::Kind::kFailed;
      report.failure = {FailureClass::kInputLost, "OBJECT_NOT_FOUND", "m", 0, "", {}};
      report.missing_sha256 = inputs;
      return;
    }
    if (draw < 0.4) {
      report.progress.step += 1;
      report.progress.num_steps = 100;
    } else if (draw < 0.6 || settling_) {
      lease->final = true;
      report.kind = LeaseReport::Kind::kSucceeded;
      report.outcome.result_sha256 = Sha256Hex(absl::StrCat(a.job_uid, a.task));
      lost_objects_.erase(report.outcome.result_sha256);  // stored before it is reported
      if (a.kind == TaskKind::kPrepare) {
        const uint64_t shape = std::hash<std::string>()(a.job_uid);
        report.outcome.num_layers = 1 + shape % 5;
        report.outcome.layers_independent = (shape >> 8) % 2 == 0;
        report.outcome.num_rounds = 1 + (shape >> 16) % 3;
        report.outcome.device = worker->capabilities.device;
        report.outcome.layer_memory_bytes = (shape >> 9) % 2 == 0 ? int64_t{12} << 30 : 1 << 20;
      } else {
        CheckInputs(a);
      }
      if (a.kind == TaskKind::kFinalize) {
        report.outcome.artifact = ArtifactRef{"a", report.outcome.result_sha256, 1};
      }
    } else if (draw < 0.66) {
      lease->final = true;
      report.kind = LeaseReport::Kind::kFailed;
      constexpr FailureClass kClasses[] = {FailureClass::kTransient,    FailureClass::kTransient,
                                           FailureClass::kOutOfMemory,  FailureClass::kInternal,
                                           FailureClass::kInvalidInput, FailureClass::kEnvironment};
      report.failure = {kClasses[Draw(Chance(0.3) ? 6 : 2)], "R", "m", 0, "", {}};
    } else if (draw < 0.67 || worker->draining) {
      lease->final = true;
      report.kind = LeaseReport::Kind::kReleased;
    }
  }

  // What a worker is given must be the stored results of what the task depends on.
  void CheckInputs(const Assignment& a) {
    if (a.plan_sha256 != Sha256Hex(absl::StrCat(a.job_uid, "prepare"))) Violate("wrong plan");
    const uint64_t shape = std::hash<std::string>()(a.job_uid);  // as in the prepare outcome
    const int num_layers = 1 + shape % 5, num_rounds = 1 + (shape >> 16) % 3;
    const bool independent = (shape >> 8) % 2 == 0;
    const auto result = [&a](int layer, int round) {
      return Sha256Hex(
          absl::StrCat(a.job_uid, "layer-000", layer, round == 0 ? "" : absl::StrCat("-", round)));
    };
    std::vector<std::string> want;
    if (a.kind == TaskKind::kFinalize) {
      for (int layer = 0; layer < num_layers; ++layer)
        want.push_back(result(layer, num_rounds - 1));
    } else {
      for (int layer = 0; layer < a.layer && !independent; ++layer) {
        want.push_back(result(layer, a.round));
      }
      if (a.round > 0) want.push_back(result(a.layer, a.round - 1));
    }
    if (a.layer_sha256 != want) Violate("wrong layer results in an assignment");
  }

  void Deliver(size_t index) {
    Message message = std::move(network_[index]);
    network_[index] = std::move(network_.back());
    network_.pop_back();
    if (message.kind == Message::kReply) return WorkerHears(message);
    const Outcome outcome = Apply(&state_, message.request, now(), &edits_);
    Flush();
    if (!outcome.status.ok()) return;
    parked_.erase(message.session);                           // a newer call has come
    if (state_.sessions.count(message.session) == 0) return;  // the server died meanwhile
    if (!Commit()) return;
    if (outcome.parked) {
      parked_[message.session] = std::move(message);
    } else {
      SendReply(message);
    }
  }

  // Sometimes other events share the transaction.
  void Flush() {
    while (!settling_ && Chance(0.2)) ClientActs();
  }

  void WorkerHears(const Message& message) {
    SimWorker& worker = workers_[message.worker];
    if (message.session != worker.session || message.sequence <= worker.last_reply) return;
    worker.last_reply = message.sequence;
    for (const LeaseDirective& directive : message.reply.directives) {
      const auto it = worker.leases.find(directive.lease_id);
      if (it == worker.leases.end()) continue;
      switch (directive.action) {
        case LeaseAction::kContinue:
          it->second.expires_at =
              std::max(it->second.expires_at, message.sent_at + policy_.lease_duration);
          break;
        case LeaseAction::kStop:
          if (!it->second.final && Chance(0.8)) {
            it->second.final = true;
            it->second.report.kind = LeaseReport::Kind::kReleased;
          }
          break;
        case LeaseAction::kAcknowledged:
        case LeaseAction::kLost:
          directive.action == LeaseAction::kLost ? ++num_lost_ : ++num_acknowledged_;
          worker.forgotten.insert(directive.lease_id);
          worker.leases.erase(it);
          break;
      }
    }
    for (const Assignment& assignment : message.reply.assignments) {
      if (worker.leases.count(assignment.lease_id) > 0 ||
          worker.forgotten.count(assignment.lease_id) > 0) {
        continue;
      }
      SimLease& lease = worker.leases[assignment.lease_id];
      lease.assignment = assignment;
      lease.expires_at = message.sent_at + policy_.lease_duration;
      lease.report.lease_id = assignment.lease_id;
      lease.report.attempt = assignment.attempt;
      lease.report.job = assignment.job;
      lease.report.task = assignment.task;
      lease.report.token_sha256 = Sha256Hex(assignment.lease_token);
    }
    if (message.reply.drain) worker.draining = true;
  }

  void ClientActs() {
    const std::string id = absl::StrCat("j", Draw(20));
    const JobEntry* entry = state_.FindJob(id);
    const uint64_t what = Draw(100);
    const std::string uid = entry == nullptr ? "" : entry->job.uid;
    if (what < 60) {
      CreateJobEvent create;
      create.job.id = id;
      create.job.uid = absl::StrCat("u", ++num_created_);
      create.job.tenant = absl::StrCat("t", Draw(3));
      create.job.priority = static_cast<int>(Draw(3));
      if (Chance(0.1)) create.job.deadline = now().wall + absl::Seconds(Draw(200));
      if (Chance(0.2)) create.job.time_to_live = absl::Seconds(Draw(60));
      if (Chance(0.2)) create.job.device = Chance(0.5) ? "cpu" : "cuda";
      if (Chance(0.2)) create.job.request_id = absl::StrCat("r", Draw(50));
      create.job.request_digest = Chance(0.5) ? "same" : absl::StrCat("d", num_created_);
      Apply(&state_, create, now(), &edits_);
    } else if (what < 68) {
      Apply(&state_, CancelJobEvent{id}, now(), &edits_);
    } else if (what < 74) {
      Apply(&state_, PauseJobEvent{id}, now(), &edits_);
    } else if (what < 84) {
      Apply(&state_, ResumeJobEvent{id}, now(), &edits_);
    } else if (what < 92) {
      RetryJobEvent retry{id, {}};
      if (Chance(0.5)) retry.missing = lost_objects_;
      if (Apply(&state_, retry, now(), &edits_).status.ok()) retried_.insert(uid);
    } else if (what < 98) {
      Apply(&state_, DeleteJobEvent{id, Chance(0.5)}, now(), &edits_);
    } else {
      Apply(&state_, DrainWorkerEvent{absl::StrCat("w", Draw(6)), Chance(0.4)}, now(), &edits_);
    }
  }

  void Step() {
    const uint64_t what = Draw(100);
    SimWorker& worker = workers_[Draw(workers_.size())];
    if (what < 35) {
      if (!network_.empty()) Deliver(Draw(network_.size()));
    } else if (what < 55) {
      WorkerCalls(&worker);
    } else if (what < 75) {
      WorkerWorks(&worker);
    } else if (what < 80) {
      if (state_.jobs.size() < 25 || Chance(0.2)) ClientActs();
      Commit();
    } else if (what < 98) {
      mono_ += absl::Milliseconds(Draw(400));
      for (SimWorker& w : workers_) WorkerWorks(&w);
      Tick();
      Commit();
    } else if (what == 98) {
      if (Chance(0.5)) {
        for (const auto& [id, lease] : worker.leases) lost_on_purpose_.insert(id);
        RestartWorker(&worker);
      } else {
        worker.silent_until = mono_ + absl::Seconds(Draw(12));  // a pause, then a late return
      }
    } else {
      if (Chance(0.2)) RestartServer();
      if (Chance(0.2)) {
        skew_ = absl::Seconds(static_cast<int64_t>(Draw(7200)) - 3600);
      }
      if (Chance(0.05)) {
        Apply(&state_, ConfirmWallClockEvent{}, now(), &edits_);
        skews_ = {{mono_, skew_}};
      }
      if (Chance(0.2)) LoseObject();
      if (Chance(0.2)) ForgeSequence(worker);
      if (Chance(0.05)) worker.sick = !worker.sick;
      if (Chance(0.3)) {
        const auto it = parked_.begin();
        if (it != parked_.end()) {
          Apply(&state_, UnparkEvent{it->first}, now(), &edits_);
          const Message message = it->second;
          parked_.erase(it);
          if (Commit()) SendReply(message);
        }
      }
    }
    if (network_.size() > 60) network_.erase(network_.begin(), network_.begin() + 20);
    if (num_events_ % 64 == 0) CheckState();
  }

  void CheckState() {
    const absl::Status status = CheckInvariants(state_);
    if (!status.ok()) return Violate(status.ToString());
    if (edits_.durable()) return;
    // What is in memory is in the store, but for what is ephemeral by design.
    size_t num_tasks = 0;
    for (const auto& [seq, entry] : state_.jobs) {
      absl::StatusOr<Job> stored = DecodeJob(store_.jobs_[seq]);
      if (!stored.ok()) return Violate(absl::StrCat("job ", entry.job.id, " is not stored"));
      Job job = entry.job;
      stored->version = job.version = 0;
      // What moves with each report is stored with the next change: never ahead of what is shown
      // (times are the wall clock's, which jumps).
      if (stored->fraction > job.fraction) {
        return Violate(absl::StrCat("job ", job.id, " is stored as further than it is"));
      }
      stored->fraction = job.fraction;
      stored->update_time = job.update_time;
      if (EncodeJob(*stored) != EncodeJob(job)) {
        return Violate(absl::StrCat("job ", job.id, " is not stored as it is"));
      }
      for (size_t i = 0; i < entry.tasks.size(); ++i, ++num_tasks) {
        absl::StatusOr<Task> kept = DecodeTask(store_.tasks_[{seq, static_cast<int32_t>(i)}]);
        Task task = entry.tasks[i];
        if (kept.ok()) kept->version = task.version = 0;
        if (!kept.ok() || EncodeTask(*kept) != EncodeTask(task)) {
          return Violate(absl::StrCat("task ", job.id, "/", task.id, " is not stored as it is"));
        }
      }
    }
    if (store_.jobs_.size() != state_.jobs.size() || store_.tasks_.size() != num_tasks) {
      Violate("the store holds what is deleted");
    }
  }

  // No faults any more: every job must come to an end.
  void Settle() {
    settling_ = true;
    std::vector<std::string> ids;
    for (const auto& [seq, entry] : state_.jobs) ids.push_back(entry.job.id);
    for (const std::string& id : ids) Apply(&state_, ResumeJobEvent{id}, now(), &edits_);
    for (SimWorker& worker : workers_) {
      Apply(&state_, DrainWorkerEvent{worker.name, false}, now(), &edits_);
      for (const auto& [id, lease] : worker.leases) lost_on_purpose_.insert(id);
      RestartWorker(&worker);
      worker.capabilities.memory_bytes = int64_t{1} << 40;
    }
    Commit();
    for (int round = 0; round < 4000 && violation_.empty(); ++round) {
      bool all_final = true;
      for (const auto& [seq, entry] : state_.jobs) all_final &= IsFinal(entry.job.state);
      if (all_final) return CheckState();
      mono_ += absl::Milliseconds(500);
      Apply(&state_, TickEvent{}, now(), &edits_);
      Commit();
      for (SimWorker& worker : workers_) {
        WorkerWorks(&worker);
        WorkerCalls(&worker);
      }
      while (!network_.empty()) Deliver(0);
    }
    for (const auto& [seq, entry] : state_.jobs) {
      if (IsFinal(entry.job.state)) continue;
      std::string tasks;
      const Tenant& tenant = state_.tenants.at(entry.job.tenant);
      absl::StrAppend(&tasks, " device ", entry.job.device, ", queued ",
                      entry.queued_as.has_value(), ", tenant runs ", tenant.num_running_jobs,
                      " of ", policy_.max_running_jobs_per_tenant, ", ready ", entry.ready.size(),
                      ", exceeded ", entry.tasks[0].exceeded_memory_bytes, ";");
      for (const auto& [id, session] : state_.sessions) {
        absl::StrAppend(&tasks, " ", id, " draining ", session.draining, session.drain_requested,
                        " free ", session.num_free_slots, " leases ", session.leases.size(), ";");
      }
      for (const Task& task : entry.tasks) {
        absl::StrAppend(&tasks, " ", task.id, "=", TaskStateName(task.state));
      }
      return Violate(absl::StrCat("job ", entry.job.id,
                                  " never ended: ", JobStateName(entry.job.state), ",", tasks, "; ",
                                  entry.job.status_message));
    }
  }

  std::mt19937_64 random_;
  Policy policy_;
  MemoryStore store_;
  State state_;
  uint64_t sequence_ = 0;
  Edits edits_;
  std::map<std::string, Message> parked_;
  std::vector<SimWorker> workers_;
  std::vector<Message> network_;
  absl::Duration mono_ = absl::Seconds(1000), skew_;
  // Since when, how much, as the server read it: at its ticks.
  std::vector<std::pair<absl::Duration, absl::Duration>> skews_;
  std::set<std::string> lost_objects_, ever_lost_;  // digests
  std::string violation_;
  int64_t num_events_ = 0;
  int num_sessions_ = 0, num_created_ = 0, num_succeeded_ = 0, num_failed_ = 0, num_restarts_ = 0;
  int64_t num_acknowledged_ = 0, num_lost_ = 0;
  bool settling_ = false;
  std::set<std::string> retried_, final_, lost_on_purpose_;
  std::map<uint64_t, std::string> committed_jobs_;  // uids by seq, but for the deleted ones
  std::map<std::string, std::string> completed_;
  std::map<std::string, int32_t> attempts_;
  std::map<std::string, int64_t> versions_;
};

TEST(CoreSimulationTest, NothingIsLostAndNothingIsDoneTwice) {
  constexpr int64_t kEventsPerWorld = 20000, kEventsPerReport = 1000000;
  const int64_t total = EnvOr("UNIQUANF_SIMULATION_EVENTS", 200000);
  uint64_t seed = static_cast<uint64_t>(EnvOr("UNIQUANF_SIMULATION_SEED", 1));
  for (int64_t done = 0; done < total; done += kEventsPerWorld, ++seed) {
    World world(seed);
    const std::string violation = world.Run(std::min(kEventsPerWorld, total - done));
    ASSERT_EQ(violation, "") << "replay with UNIQUANF_SIMULATION_SEED=" << seed << "; "
                             << world.Summary();
    if (done % kEventsPerReport == 0) {
      std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed),
                  world.Summary().c_str());
      std::fflush(stdout);
    }
  }
}

}  // namespace
}  // namespace uniquanf::server
