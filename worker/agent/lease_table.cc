#include "worker/agent/lease_table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/rpc/job_proto.h"
#include "common/rpc/time_proto.h"
#include "worker/agent/failure_class.h"

namespace uniquanf {
namespace {
constexpr size_t kMaxForgotten = 256;
}  // namespace

LeaseTable::LeaseTable(const LeaseTableOptions& options)
    : options_(options), slots_(static_cast<size_t>(options.num_slots)) {
  UQ_CHECK(options.num_slots > 0);
}

Orders LeaseTable::ApplyReply(const v1::SynchronizeResponse& reply, int64_t sequence,
                              absl::Duration sent_at, absl::Duration now) {
  Orders orders;
  if (sequence <= last_sequence_) {
    orders.notes.push_back(absl::StrCat("ignored a reply to the older request ", sequence));
    return orders;
  }
  last_sequence_ = sequence;
  for (const v1::LeaseDirective& directive : reply.directives()) {
    ApplyDirective(directive, sent_at, now, &orders);
  }
  for (const v1::TaskAssignment& assignment : reply.assignments()) {
    ApplyAssignment(assignment, sent_at, now, &orders);
  }
  return orders;
}

void LeaseTable::ApplyDirective(const v1::LeaseDirective& directive, absl::Duration sent_at,
                                absl::Duration now, Orders* orders) {
  const auto it = leases_.find(directive.lease_id());
  if (it == leases_.end()) return;  // forgotten since the request was sent
  Lease& lease = it->second;
  const std::string label = absl::StrCat(lease.assignment.task(), " (", it->first, ")");
  switch (directive.action()) {
    case v1::LeaseDirective::CONTINUE:
      lease.history_step = directive.history_step();
      lease.expires_at = std::max(lease.expires_at,
                                  sent_at + DurationFromProto(lease.assignment.lease_duration()));
      return;
    case v1::LeaseDirective::STOP:
      if (lease.final) {
        Release(&lease);
        return;
      }
      if (lease.stop_cause != StopCause::kNone) return;
      orders->notes.push_back(absl::StrCat("told to stop ", label));
      lease.stop_cause = StopCause::kServer;
      StopSlot(lease.slot, now, orders);
      return;
    case v1::LeaseDirective::ACKNOWLEDGED:
    case v1::LeaseDirective::LOST:
      if (!lease.final) {
        // The server says that this lease is over although the task runs.
        orders->notes.push_back(absl::StrCat("lost the lease of ", label));
        StopSlot(lease.slot, now, orders);
      } else if (directive.action() == v1::LeaseDirective::LOST) {
        orders->notes.push_back(
            absl::StrCat("the server refused the report on ", label, ": its lease had ended"));
      }
      Forget(it->first);
      return;
    default:
      // A directive of a later protocol: without CONTINUE the lease runs out by itself.
      orders->notes.push_back(
          absl::StrCat("unknown directive ", directive.action(), " for ", label));
  }
}

void LeaseTable::ApplyAssignment(const v1::TaskAssignment& assignment, absl::Duration sent_at,
                                 absl::Duration now, Orders* orders) {
  const std::string& id = assignment.lease_id();
  if (leases_.count(id) > 0 || WasForgotten(id)) return;  // repeated by a late reply
  Lease& lease = leases_[id];
  lease.assignment = assignment;
  lease.report.set_lease_id(id);
  lease.report.set_attempt(assignment.attempt());
  lease.report.set_task(assignment.task());
  lease.report.set_lease_token(assignment.lease_token());
  const absl::Duration duration = DurationFromProto(assignment.lease_duration());
  if (id.empty() || duration <= absl::ZeroDuration()) {
    Fail(&lease, MakeError(absl::StatusCode::kInternal, "INVALID_ASSIGNMENT",
                           "the server's assignment has no lease id or no lease duration"));
    return;
  }
  lease_duration_ = duration;
  lease.expires_at = sent_at + duration;
  const auto free = std::find_if(slots_.begin(), slots_.end(),
                                 [](const Slot& slot) { return slot.lease_id.empty(); });
  if (draining_ || restart_wanted_ || free == slots_.end() || lease.expires_at <= now) {
    orders->notes.push_back(absl::StrCat("gave back ", assignment.task(), ": ",
                                         draining_ || restart_wanted_ ? "draining"
                                         : free == slots_.end()       ? "no free slot"
                                                                      : "the reply came too late"));
    Release(&lease);
    return;
  }
  lease.slot = static_cast<int>(free - slots_.begin());
  *free = Slot{};
  free->lease_id = id;
  free->last_progress_at = now;
  lease.report.mutable_running()->set_phase("starting");
  orders->start.push_back({lease.slot, assignment});
}

Orders LeaseTable::ApplyTime(absl::Duration now) {
  Orders orders;
  for (auto& [id, lease] : leases_) {
    if (lease.final || lease.stop_cause == StopCause::kExpired || now < lease.expires_at) continue;
    ++num_leases_expired_;
    orders.notes.push_back(absl::StrCat("the lease of ", lease.assignment.task(), " (", id,
                                        ") ran out without renewal: its work is discarded"));
    lease.stop_cause = StopCause::kExpired;
    StopSlot(lease.slot, now, &orders);
  }
  for (size_t i = 0; i < slots_.size(); ++i) {
    Slot& slot = slots_[i];
    if (slot.lease_id.empty() || slot.stuck) continue;
    const bool stalled = now - slot.last_progress_at >= options_.stall_timeout;
    const bool deaf = slot.stopping && now - slot.stop_at >= options_.stop_timeout;
    if (!stalled && !deaf) continue;
    slot.stuck = true;
    restart_wanted_ = true;
    const auto it = leases_.find(slot.lease_id);
    const std::string message = deaf ? absl::StrCat("the task did not stop within ",
                                                    absl::FormatDuration(options_.stop_timeout))
                                     : absl::StrCat("the task made no progress for ",
                                                    absl::FormatDuration(options_.stall_timeout));
    orders.notes.push_back(absl::StrCat(message, "; slot ", i, " is given up"));
    StopSlot(static_cast<int>(i), now, &orders);
    if (it == leases_.end()) continue;
    Lease& lease = it->second;
    if (lease.stop_cause != StopCause::kNone) {
      Release(&lease);
    } else {
      Fail(&lease, MakeError(absl::StatusCode::kUnavailable, "TASK_STALLED", message));
    }
  }
  return orders;
}

Orders LeaseTable::StopAll(absl::Duration now) {
  Orders orders;
  for (auto& [id, lease] : leases_) {
    if (lease.final || lease.stop_cause != StopCause::kNone) continue;
    lease.stop_cause = StopCause::kDrain;
    StopSlot(lease.slot, now, &orders);
  }
  return orders;
}

Orders LeaseTable::StartAfresh(absl::Duration now) {
  Orders orders;
  last_sequence_ = 0;
  while (!leases_.empty()) {
    const Lease& lease = leases_.begin()->second;
    if (!lease.final) StopSlot(lease.slot, now, &orders);
    Forget(leases_.begin()->first);
  }
  return orders;
}

void LeaseTable::OnProgress(int slot, const v1::TaskProgress& progress, absl::Duration now) {
  Slot& state = slots_[static_cast<size_t>(slot)];
  state.last_progress_at = now;
  const auto it = leases_.find(state.lease_id);
  if (it != leases_.end() && !it->second.final) *it->second.report.mutable_running() = progress;
}

void LeaseTable::SetHistory(int slot, const LossHistory& history) {
  const auto it = leases_.find(slots_[static_cast<size_t>(slot)].lease_id);
  if (it == leases_.end() || it->second.history.last_step() == history.last_step()) return;
  it->second.history = history;
}

void LeaseTable::OnFinished(int slot, absl::StatusOr<v1::TaskOutcome> result) {
  Slot& state = slots_[static_cast<size_t>(slot)];
  const auto it = leases_.find(state.lease_id);
  state = Slot{};
  if (!result.ok() && NeedsRestart(result.status())) restart_wanted_ = true;
  // A lost lease has no one to report to; a given-up one has its report.
  if (it == leases_.end() || it->second.final) return;
  Lease& lease = it->second;
  lease.slot = -1;
  if (lease.stop_cause == StopCause::kExpired) {
    Release(&lease);
  } else if (result.ok()) {
    lease.final = true;
    *lease.report.mutable_succeeded() = *std::move(result);
  } else if (lease.stop_cause != StopCause::kNone && absl::IsCancelled(result.status())) {
    Release(&lease);
  } else {
    Fail(&lease, result.status());
  }
}

void LeaseTable::FillReports(v1::SynchronizeRequest* request) const {
  for (const auto& [id, lease] : leases_) {
    v1::LeaseReport* report = request->add_leases();
    *report = lease.report;
    if (!lease.final && lease.history.last_step() > lease.history_step) {
      HistoryToProto(lease.history, lease.history_step, report->mutable_history());
    }
  }
  request->set_draining(draining_ || restart_wanted_);
  request->set_num_free_slots(num_free_slots());
}

bool LeaseTable::has_final_reports() const {
  return std::any_of(leases_.begin(), leases_.end(),
                     [](const auto& entry) { return entry.second.final; });
}

bool LeaseTable::is_stopping() const {
  return std::any_of(slots_.begin(), slots_.end(), [](const Slot& slot) {
    return !slot.lease_id.empty() && slot.stopping && !slot.stuck;
  });
}

int LeaseTable::num_running() const {
  return static_cast<int>(std::count_if(slots_.begin(), slots_.end(),
                                        [](const Slot& slot) { return !slot.lease_id.empty(); }));
}

int LeaseTable::num_free_slots() const {
  return draining_ || restart_wanted_ ? 0 : static_cast<int>(slots_.size()) - num_running();
}

void LeaseTable::StopSlot(int slot, absl::Duration now, Orders* orders) {
  Slot& state = slots_[static_cast<size_t>(slot)];
  if (state.stopping) return;
  state.stopping = true;
  state.stop_at = now;
  orders->stop.push_back(slot);
}

void LeaseTable::Forget(const std::string& lease_id) {
  forgotten_.push_back(lease_id);
  if (forgotten_.size() > kMaxForgotten) forgotten_.pop_front();
  leases_.erase(forgotten_.back());
}

bool LeaseTable::WasForgotten(const std::string& lease_id) const {
  return std::find(forgotten_.begin(), forgotten_.end(), lease_id) != forgotten_.end();
}

void LeaseTable::Release(Lease* lease) {
  lease->final = true;
  lease->slot = -1;
  lease->report.set_released(true);
}

void LeaseTable::Fail(Lease* lease, const absl::Status& status) {
  lease->final = true;
  lease->slot = -1;
  *lease->report.mutable_failed() = FailureFromStatus(status);
}

}  // namespace uniquanf
