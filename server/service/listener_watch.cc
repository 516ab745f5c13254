#include "server/service/listener_watch.h"

#include <memory>
#include <utility>

#include "common/rpc/health_check.h"

namespace uniquanf::server {
namespace {

// A standby answers that it does not serve: its port works.
absl::Status CheckOnce(GuardedListener* listener, absl::Duration timeout) {
  const auto channel = listener->ConnectToSelf();
  if (!channel.ok()) return channel.status();
  const absl::Status status = CheckHealth(*channel, timeout);
  return absl::IsFailedPrecondition(status) ? absl::OkStatus() : status;
}

}  // namespace

ListenerWatch::ListenerWatch(ListenerWatchOptions options, GuardedListener* listener)
    : options_(std::move(options)), listener_(listener), thread_([this] { Run(); }) {}

ListenerWatch::~ListenerWatch() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  thread_.join();
}

absl::Status ListenerWatch::health() const {
  absl::MutexLock lock(&mutex_);
  return num_failures_ >= options_.max_failures ? last_ : absl::OkStatus();
}

void ListenerWatch::Run() {
  while (true) {
    const absl::Status status = CheckOnce(listener_, options_.timeout);
    bool dead = false;
    {
      absl::MutexLock lock(&mutex_);
      last_ = status;
      num_failures_ = status.ok() ? 0 : num_failures_ + 1;
      dead = num_failures_ == options_.max_failures_alive;
    }
    if (dead && options_.on_dead != nullptr) options_.on_dead(status);
    absl::MutexLock lock(&mutex_);
    if (mutex_.AwaitWithTimeout(absl::Condition(&stop_), options_.period)) return;
  }
}

}  // namespace uniquanf::server
