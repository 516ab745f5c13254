#include "server/runtime/janitor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/object_store/unfinished_writes.h"

namespace uniquanf::server {

Janitor::Janitor(JanitorOptions options, Runtime* runtime)
    : options_(std::move(options)), runtime_(runtime), thread_([this] { Run(); }) {}

Janitor::~Janitor() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  thread_.join();
}

absl::StatusOr<int64_t> Janitor::Sweep(ObjectStore* root, const std::string& uid) {
  int64_t num_objects = 0;
  ListOptions options;
  options.prefix = absl::StrCat("work/", uid, "/");
  while (true) {
    absl::StatusOr<ListResult> listed = root->List(options);
    if (!listed.ok()) {
      if (absl::IsNotFound(listed.status())) return num_objects;
      return listed.status();
    }
    for (const ObjectInfo& object : listed->objects) {
      UQ_RETURN_IF_ERROR(root->Delete(object.key));
      ++num_objects;
    }
    if (!listed->truncated || listed->objects.empty()) return num_objects;
    options.start_after = listed->objects.back().key;
  }
}

bool Janitor::Stopping() {
  absl::MutexLock lock(&mutex_);
  return stop_;
}

void Janitor::SweepGarbage() {
  const std::vector<std::string> garbage = runtime_->published().Garbage();
  std::map<std::string, absl::Duration> quiet_since;
  for (const std::string& uid : garbage) {
    if (Stopping()) return;
    const absl::Duration now = options_.clock->Monotonic();
    const auto known = quiet_since_.find(uid);
    if (known != quiet_since_.end() && now - known->second < options_.late_write_grace) {
      quiet_since.insert(*known);
      continue;
    }
    absl::Status status;
    int64_t num_objects = 0;
    if (root_ == nullptr) {
      absl::StatusOr<std::shared_ptr<ObjectStore>> opened =
          OpenObjectStore(options_.object_root, options_.store);
      status = opened.status();
      if (opened.ok()) root_ = *std::move(opened);
    }
    if (root_ != nullptr) {
      const absl::StatusOr<int64_t> swept = Sweep(root_.get(), uid);
      status = swept.status();
      if (swept.ok()) num_objects = *swept;
    }
    if (options_.on_swept != nullptr) options_.on_swept(uid, num_objects, status);
    if (!status.ok()) continue;
    if (known != quiet_since_.end() && num_objects == 0) {
      runtime_->Post(GarbageCollectedEvent{uid});
    }
    quiet_since[uid] = now;
  }
  quiet_since_ = std::move(quiet_since);  // forgets what is off the list
}

void Janitor::SweepUnfinishedWrites() {
  const absl::Duration now = options_.clock->Monotonic();
  if (options_.unfinished_write_age == absl::InfiniteDuration() || now < next_unfinished_sweep_ ||
      !runtime_->availability().ok() ||    // a standby leaves it to the active server
      !runtime_->wall_clock_believed()) {  // it says how old they are
    return;
  }
  next_unfinished_sweep_ = now + options_.unfinished_write_period;
  const absl::StatusOr<int> removed =
      RemoveUnfinishedWrites(options_.object_root, options_.unfinished_write_age);
  const bool nothing = removed.ok() && *removed == 0;
  if (!nothing && options_.on_unfinished_writes != nullptr) options_.on_unfinished_writes(removed);
}

void Janitor::Run() {
  while (!Stopping()) {
    SweepGarbage();
    SweepUnfinishedWrites();
    absl::MutexLock lock(&mutex_);
    if (mutex_.AwaitWithTimeout(absl::Condition(&stop_), options_.period)) return;
  }
}

}  // namespace uniquanf::server
