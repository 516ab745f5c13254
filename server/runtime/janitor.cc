#include "server/runtime/janitor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

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

void Janitor::Run() {
  std::shared_ptr<ObjectStore> root;
  while (true) {
    for (const std::string& uid : runtime_->published().Garbage()) {
      {
        absl::MutexLock lock(&mutex_);
        if (stop_) return;
      }
      absl::Status status;
      int64_t num_objects = 0;
      if (root == nullptr) {
        absl::StatusOr<std::shared_ptr<ObjectStore>> opened = OpenObjectStore(options_.object_root);
        status = opened.status();
        if (opened.ok()) root = *std::move(opened);
      }
      if (root != nullptr) {
        const absl::StatusOr<int64_t> swept = Sweep(root.get(), uid);
        status = swept.status();
        if (swept.ok()) num_objects = *swept;
      }
      if (options_.on_swept != nullptr) options_.on_swept(uid, num_objects, status);
      if (status.ok()) runtime_->Post(GarbageCollectedEvent{uid});
    }
    absl::MutexLock lock(&mutex_);
    if (mutex_.AwaitWithTimeout(absl::Condition(&stop_), options_.period)) return;
  }
}

}  // namespace uniquanf::server
