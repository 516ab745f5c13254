#include "server/core/apply.h"

#include "server/core/mutations.h"

namespace uniquanf::server {
namespace {

struct Dispatch {
  State* state;
  Mutation& m;
  Edits* edits;

  Outcome operator()(const CreateJobEvent& e) { return m.CreateJob(e); }
  Outcome operator()(const CancelJobEvent& e) { return m.CancelJob(e); }
  Outcome operator()(const PauseJobEvent& e) { return m.PauseJob(e); }
  Outcome operator()(const ResumeJobEvent& e) { return m.ResumeJob(e); }
  Outcome operator()(const RetryJobEvent& e) { return m.RetryJob(e); }
  Outcome operator()(const DeleteJobEvent& e) { return m.DeleteJob(e); }
  Outcome operator()(const SynchronizeEvent& e) { return m.Synchronize(e); }
  Outcome operator()(const DrainWorkerEvent& e) { return m.DrainWorker(e); }
  Outcome operator()(const UnparkEvent& e) {
    m.Unpark(e.session);
    return {};
  }
  Outcome operator()(const TickEvent&) {
    m.Tick();
    return {};
  }
  Outcome operator()(const GarbageCollectedEvent& e) {
    if (state->garbage.erase(e.uid) > 0) {
      edits->garbage_removed.insert(e.uid);
      edits->garbage_added.erase(e.uid);
    }
    return {};
  }
  Outcome operator()(const ConfirmWallClockEvent&) {
    m.ConfirmWallClock();
    return {};
  }
  Outcome operator()(const StopLeasingEvent&) {
    state->leasing = false;
    for (const auto& [id, session] : state->parked) edits->wake.insert(id);
    for (const std::string& id : edits->wake) m.Unpark(id);
    return {};
  }
};

}  // namespace

Outcome Apply(State* state, const Event& event, const Now& now, Edits* edits) {
  Mutation mutation(state, now, edits);
  Outcome outcome = std::visit(Dispatch{state, mutation, edits}, event);
  mutation.MatchParked();
  // A call that was parked and then found work in the same event is answered at once.
  if (outcome.parked) {
    const auto& call = std::get<SynchronizeEvent>(event);
    if (edits->wake.erase(call.session) > 0) {
      mutation.Unpark(call.session);
      outcome.parked = false;
    }
  }
  return outcome;
}

}  // namespace uniquanf::server
