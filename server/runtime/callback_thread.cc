#include "server/runtime/callback_thread.h"

#include <utility>

#include "common/base/check.h"

namespace uniquanf::server {

void CallbackThread::Add(std::function<void()> callback) {
  absl::MutexLock lock(&mutex_);
  UQ_CHECK(!stop_);
  queue_.push_back(std::move(callback));
}

void CallbackThread::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void CallbackThread::Run() {
  const auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stop_ || !queue_.empty();
  };
  while (true) {
    std::vector<std::function<void()>> due;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&has_work));
      if (queue_.empty()) return;
      due.swap(queue_);
    }
    for (const auto& callback : due) callback();
  }
}

}  // namespace uniquanf::server
