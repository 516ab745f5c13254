// A WorkerService for tests of the agent: hands out queued tasks, keeps what it is told, and can
// fail, hold acknowledgements, lose replies and go away.
//
// Thread safety: thread-safe.
#ifndef UNIQUANF_TESTS_UNIT_WORKER_AGENT_FAKE_WORKER_SERVICE_H_
#define UNIQUANF_TESTS_UNIT_WORKER_AGENT_FAKE_WORKER_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/base/status.h"
#include "common/rpc/status_proto.h"
#include "common/rpc/time_proto.h"
#include "uniquanf/v1/worker_service.grpc.pb.h"

namespace uniquanf {

class FakeWorkerService : public v1::WorkerService::Service {
 public:
  struct State {
    std::vector<v1::SynchronizeRequest> requests;  // that were answered with OK or not
    std::deque<std::string> queue;                 // tasks to lease
    std::map<std::string, v1::LeaseReport> live;   // leases given and not acknowledged, last report
    std::map<std::string, v1::LeaseReport> ended;  // acknowledged
    std::set<std::string> stop;                    // leases to cancel
    absl::Status error;                            // not OK: every call fails with it
    int num_lost_replies = 0;  // so many calls are executed, then answered UNAVAILABLE
    int num_held_acks = 0;     // so many final reports are answered CONTINUE
    bool drain = false;
    absl::Duration lease_duration = absl::Seconds(30);
    absl::Duration next_call = absl::Seconds(10);
    int next_lease = 1;
  };

  ~FakeWorkerService() override { Stop(); }

  // Serves on `port` (0: a free one); returns the address.
  std::string Start(int port = 0) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:" + std::to_string(port), grpc::InsecureServerCredentials(),
                             &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    return "127.0.0.1:" + std::to_string(port_);
  }
  void Stop() {
    if (server_ == nullptr) return;
    server_->Shutdown(std::chrono::system_clock::now());
    server_.reset();
  }
  int port() const { return port_; }

  template <typename F>
  auto With(F f) {
    absl::MutexLock lock(&mutex_);
    return f(state_);
  }
  // False when `condition` does not hold within `timeout`.
  bool WaitFor(std::function<bool(const State&)> condition,
               absl::Duration timeout = absl::Seconds(10)) {
    absl::MutexLock lock(&mutex_);
    const auto holds = [this, &condition] { return condition(state_); };
    return mutex_.AwaitWithTimeout(absl::Condition(&holds), timeout);
  }

  grpc::Status Synchronize(grpc::ServerContext* context, const v1::SynchronizeRequest* request,
                           v1::SynchronizeResponse* response) override {
    absl::MutexLock lock(&mutex_);
    state_.requests.push_back(*request);
    if (!state_.error.ok()) return ToGrpcStatus(state_.error);
    const absl::Time hold_until = absl::Now() + DurationFromProto(request->max_wait());
    while (true) {
      response->Clear();
      const bool something_to_do = Answer(*request, response);
      if (something_to_do || absl::Now() >= hold_until) break;
      if (context->IsCancelled()) return grpc::Status::CANCELLED;
      const bool never = false;
      mutex_.AwaitWithTimeout(absl::Condition(&never), absl::Milliseconds(5));
      if (!state_.error.ok()) return ToGrpcStatus(state_.error);
    }
    if (state_.num_lost_replies > 0) {
      --state_.num_lost_replies;
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "reply lost");
    }
    return grpc::Status::OK;
  }

 private:
  bool Answer(const v1::SynchronizeRequest& request, v1::SynchronizeResponse* response) {
    bool something = false;
    std::set<std::string> reported;
    for (const v1::LeaseReport& report : request.leases()) {
      reported.insert(report.lease_id());
      v1::LeaseDirective* directive = response->add_directives();
      directive->set_lease_id(report.lease_id());
      directive->set_action(Direct(report));
      something |= directive->action() != v1::LeaseDirective::CONTINUE || !report.has_running();
    }
    for (int i = 0; i < request.num_free_slots() && !state_.queue.empty(); ++i) {
      const std::string id = "lease-" + std::to_string(state_.next_lease++);
      v1::LeaseReport report;
      report.set_lease_id(id);
      report.set_task(state_.queue.front());
      state_.queue.pop_front();
      state_.live[id] = report;
    }
    for (const auto& [id, report] : state_.live) {
      if (reported.count(id) > 0) continue;
      v1::TaskAssignment* assignment = response->add_assignments();
      assignment->set_lease_id(id);
      assignment->set_lease_token("token of " + id);
      assignment->set_attempt(1);
      assignment->set_task(report.task());
      *assignment->mutable_lease_duration() = DurationToProto(state_.lease_duration);
      something = true;
    }
    *response->mutable_next_call() = DurationToProto(state_.next_call);
    response->set_drain(state_.drain);
    return something || (state_.drain && !request.draining());
  }

  v1::LeaseDirective::Action Direct(const v1::LeaseReport& report) {
    const auto it = state_.live.find(report.lease_id());
    if (it == state_.live.end()) return v1::LeaseDirective::LOST;
    it->second = report;
    if (report.has_running()) {
      return state_.stop.count(report.lease_id()) > 0 ? v1::LeaseDirective::STOP
                                                      : v1::LeaseDirective::CONTINUE;
    }
    if (state_.num_held_acks > 0) {
      --state_.num_held_acks;
      return v1::LeaseDirective::CONTINUE;
    }
    state_.ended[report.lease_id()] = report;
    state_.live.erase(it);
    return v1::LeaseDirective::ACKNOWLEDGED;
  }

  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  absl::Mutex mutex_;
  State state_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_UNIT_WORKER_AGENT_FAKE_WORKER_SERVICE_H_
