// What watchers are sent, made once for all that need the same: thousands follow one job, and
// nearly all of them have seen the same version of it.
//
// Thread safety: thread-safe. Ownership: updates are shared and immutable. Lifetime: borrows the
// published state.
#ifndef UNIQUANF_SERVER_SERVICE_WATCH_UPDATES_H_
#define UNIQUANF_SERVER_SERVICE_WATCH_UPDATES_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/runtime/published_state.h"
#include "server/service/converters.h"
#include "uniquanf/v1/job_service.pb.h"

namespace uniquanf::server {

class WatchUpdates {
 public:
  explicit WatchUpdates(const PublishedState* published) : published_(published) {}

  struct Update {
    // To be sent in this order: several where there are many tasks. Empty: nothing newer than was
    // seen.
    std::vector<std::shared_ptr<const v1::WatchJobResponse>> responses;
    bool final = false;  // nothing will follow
  };
  // For a watcher that has seen `version` of the job, and of its tasks what had changed up to
  // `tasks_version` (-1: nothing). nullopt: there is no such job.
  std::optional<Update> After(uint64_t job, int64_t version, int64_t tasks_version,
                              NameForm form = NameForm::kShort);

  int64_t num_made() const;  // for tests

 private:
  struct Made {
    uint64_t job = 0;
    int64_t tasks_version = 0, version = 0;  // from, to
    NameForm form = NameForm::kShort;
    Update update;
  };

  const PublishedState* const published_;
  mutable absl::Mutex mutex_;
  std::deque<Made> made_ ABSL_GUARDED_BY(mutex_);  // the latest few, newest first
  int64_t num_made_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_SERVICE_WATCH_UPDATES_H_
