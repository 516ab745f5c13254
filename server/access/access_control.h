// Who calls, by certificate or token, and what the policy of the moment gives them. Reads the
// policy file and the issuers' keys again while the server runs; files that are bad change nothing
// but a warning and a metric.
//
// Thread safety: thread-safe; has a thread of its own. Errors: kUnauthenticated with a reason
// (access_policy.h, jwt.h; NO_IDENTITY: neither certificate nor token); kUnavailable
// (TOKEN_KEYS_UNAVAILABLE): the call is to come again.
#ifndef UNIQUANF_SERVER_ACCESS_ACCESS_CONTROL_H_
#define UNIQUANF_SERVER_ACCESS_ACCESS_CONTROL_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/rpc/notes.h"
#include "server/access/access_policy.h"
#include "server/access/key_source.h"
#include "server/access/principal.h"

namespace uniquanf::server {

struct AccessOptions {
  std::string policy_file;
  absl::Duration period = absl::Seconds(10);  // between two looks at the file
  KeyFetcher fetch = FetchTokenKeys;
  NoteSink note;
};

class AccessControl {
 public:
  // The file must be good now; keys may come later. Errors: kInvalidArgument (INVALID_POLICY) names
  // the file. `clock` is borrowed.
  static absl::StatusOr<std::unique_ptr<AccessControl>> Start(AccessOptions options,
                                                              const Clock* clock);
  ~AccessControl();

  // `authorization`: the values of that header. A token says who calls, whatever certificate the
  // connection has; one that is refused is not made up for by a certificate.
  absl::StatusOr<Principal> Authenticate(const PeerNames& certificate,
                                         const std::vector<std::string>& authorization) const;
  // The same one by what holds now. Errors: TOKEN_EXPIRED, NO_IDENTITY.
  absl::StatusOr<Principal> Again(const Principal& principal) const;
  std::shared_ptr<const AccessPolicy> policy() const;

  // Reads policy and keys now, on the thread.
  void ReloadNow();
  // What is called, on the thread, after a policy was taken and at least once a minute: rights may
  // have ended. Null: nobody. Waits for a call that is under way.
  void set_on_recheck(std::function<void()> recheck) ABSL_LOCKS_EXCLUDED(recheck_mutex_);

  struct Health {
    bool policy_rejected = false;  // the file is not what is in use
    int num_key_failures = 0;      // issuers whose keys could not be read the last time
  };
  Health health() const;

 private:
  struct InUse {
    AccessPolicy policy;
    std::map<std::string, std::shared_ptr<KeySource>> keys;  // by location
  };

  AccessControl(AccessOptions options, const Clock* clock)
      : options_(std::move(options)), clock_(clock) {}
  void Run();
  void LookAtPolicy();
  void FetchDueKeys(bool all);
  void Take(AccessPolicy policy, std::string text);
  void Note(NoteLevel level, const std::string& text) const;
  std::shared_ptr<const InUse> in_use() const;

  const AccessOptions options_;
  const Clock* const clock_;
  std::string text_;                              // the thread's own: what in_use_ was made of
  std::string told_;                              // likewise: the last warning
  std::map<std::string, std::string> keys_told_;  // likewise, by location
  mutable absl::Mutex mutex_;
  std::shared_ptr<const InUse> in_use_ ABSL_GUARDED_BY(mutex_);
  bool policy_rejected_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool look_now_ ABSL_GUARDED_BY(mutex_) = false;
  mutable bool keys_wanted_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Mutex recheck_mutex_;  // held while it is called
  std::function<void()> recheck_ ABSL_GUARDED_BY(recheck_mutex_);
  std::thread thread_;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_ACCESS_ACCESS_CONTROL_H_
