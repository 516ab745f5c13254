// Where an issuer's keys come from: a file or an https URL, read again and again by whoever owns
// this (access_control.h has the thread).
//
// Thread safety: thread-safe. Errors: kUnavailable (TOKEN_KEYS_UNAVAILABLE), kUnauthenticated.
#ifndef UNIQUANF_SERVER_ACCESS_KEY_SOURCE_H_
#define UNIQUANF_SERVER_ACCESS_KEY_SOURCE_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/access/jwt.h"

namespace uniquanf::server {

// What is there now: the text of a JWK set.
using KeyFetcher = std::function<absl::StatusOr<std::string>(const std::string& location)>;
// Reads files, and https URLs within 10 s and up to 1 MiB, whose certificate the system's
// authorities vouch for; follows no redirection.
absl::StatusOr<std::string> FetchTokenKeys(const std::string& location);

class KeySource {
 public:
  explicit KeySource(std::string location);

  const std::string& location() const { return location_; }
  // Times are monotonic.
  // OK, or why the token is not believed. A key that is not known makes the source due, at most
  // once a minute; until it was read the answer is kUnavailable, for the call is to come again.
  absl::Status Verify(const Token& token, absl::Duration now);
  absl::Duration due() const;
  // Reads the keys. Those that were read before stay when that fails.
  absl::Status Fetch(const KeyFetcher& fetch, absl::Duration now);
  // OK, or what the last Fetch gave.
  absl::Status last() const;

 private:
  const std::string location_;
  const absl::Duration period_;
  mutable absl::Mutex mutex_;
  std::shared_ptr<const TokenKeys> keys_ ABSL_GUARDED_BY(mutex_);
  absl::Status last_ ABSL_GUARDED_BY(mutex_);
  absl::Duration due_ ABSL_GUARDED_BY(mutex_) = -absl::InfiniteDuration();
  absl::Duration asked_at_ ABSL_GUARDED_BY(mutex_) = -absl::InfiniteDuration();
  bool asked_ ABSL_GUARDED_BY(mutex_) = false;  // for a key that was not known
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_ACCESS_KEY_SOURCE_H_
