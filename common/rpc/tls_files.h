// PEM files of TLS: read and checked as a whole, and read again while the program runs, so that a
// certificate is renewed without a restart.
//
// Errors: kInvalidArgument (INVALID_TLS_OPTIONS) names the file.
#ifndef UNIQUANF_COMMON_RPC_TLS_FILES_H_
#define UNIQUANF_COMMON_RPC_TLS_FILES_H_

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/rpc/notes.h"

namespace uniquanf {

// Empty: there is none. Certificate and key come together.
struct TlsFileNames {
  std::string ca;           // one certificate or a bundle of them
  std::string certificate;  // the program's own, then those that vouch for it
  std::string key;
  bool empty() const { return ca.empty() && certificate.empty() && key.empty(); }
};

struct TlsContents {
  std::string ca, certificate, key;  // PEM
  // Of the program's own certificate.
  std::string serial;  // hexadecimal digits
  absl::Time not_after = absl::InfiniteFuture();
};

// Everything that is named must be there, be PEM of its kind, and key and certificate a pair.
absl::StatusOr<TlsContents> ReadTlsFiles(const TlsFileNames& names);

struct TlsWatchOptions {
  absl::Duration period = absl::Seconds(10);
  // After files that do not fit together, which may be two files of which one is written yet.
  absl::Duration second_look = absl::Seconds(1);
  NoteSink note;
  // On the watching thread, when contents() has become these.
  std::function<void(const TlsContents&)> on_new;
};

// Reads the files again and again. It compares what they hold, not their times, so it does not
// matter how they are replaced: written over, renamed, or through a link to a directory that is
// swapped. New contents count when they are whole, fit together and have not expired; else the old
// ones stay, with a warning that names the file. Warns, too, while less than 14 days are left.
//
// Thread safety: thread-safe. The destructor ends the thread.
class TlsWatch {
 public:
  static absl::StatusOr<std::unique_ptr<TlsWatch>> Start(const TlsFileNames& names,
                                                         TlsWatchOptions options);
  ~TlsWatch();

  // The ones in use; never null.
  std::shared_ptr<const TlsContents> contents() const;
  // Reads the files now, on the watching thread.
  void ReloadNow();

 private:
  TlsWatch(const TlsFileNames& names, TlsWatchOptions options, TlsContents contents);
  void Run();
  // How long to wait for the next look.
  absl::Duration Look();
  void WarnOfExpiry();
  void Note(NoteLevel level, const std::string& text) const;

  const TlsFileNames names_;
  const TlsWatchOptions options_;
  absl::Status last_failure_;                         // the watching thread's own
  bool failure_told_ = false;                         // likewise
  absl::Time expiry_told_at_ = absl::InfinitePast();  // likewise
  mutable absl::Mutex mutex_;
  std::shared_ptr<const TlsContents> contents_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool look_now_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_RPC_TLS_FILES_H_
