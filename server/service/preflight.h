// Looks at what a job's spec names before the job is queued: what cannot succeed is refused at
// once, and not after an hour in the queue. What the server cannot reach, or not in time, is named
// as not checked: workers may see other places than the server.
//
// Only what follows from files' headers is looked at, and refused only where a worker would refuse
// it: config.json, the shapes of tensors, overrides, group sizes, token files, a free output.
//
// Thread safety: thread-safe; looks on a thread of its own. Lifetime: the destructor runs what was
// asked before.
#ifndef UNIQUANF_SERVER_SERVICE_PREFLIGHT_H_
#define UNIQUANF_SERVER_SERVICE_PREFLIGHT_H_

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/object_store/object_store.h"
#include "common/spec/quantization_spec.h"
#include "server/runtime/callback_thread.h"

namespace uniquanf::server {

// Of the model, as far as its headers say it; zeros where they were not read.
struct ModelFacts {
  std::string architecture;
  int64_t num_layers = 0;
  int64_t layer_weights = 0;  // of one layer's two-dimensional tensors, a mean
  int64_t other_weights = 0;  // of all others
  int64_t size_bytes = 0;
};

struct PreflightResult {
  // OK, or kInvalidArgument, kNotFound or kAlreadyExists with all that is wrong.
  absl::Status status;
  std::vector<std::string> not_checked;  // what and why, for people
  ModelFacts model;
};

// What workers say they can quantize, of the last ten minutes. Thread-safe.
class KnownArchitectures {
 public:
  void Note(const std::string& worker, const std::vector<std::string>& architectures,
            absl::Duration now);
  std::set<std::string> All(absl::Duration now) const;

 private:
  struct Said {
    std::vector<std::string> architectures;
    absl::Duration at;
  };
  mutable absl::Mutex mutex_;
  std::map<std::string, Said> said_ ABSL_GUARDED_BY(mutex_);
};

class Preflight {
 public:
  static constexpr absl::Duration kTimeLimit = absl::Seconds(2);

  // `shares_files`: workers see the local files that the server sees, so that one that is missing
  // is missing for them.
  Preflight(StoreOptions store, bool shares_files)
      : store_(std::move(store)), shares_files_(shares_files) {}
  ~Preflight() { thread_.Stop(); }

  // `architectures`: those that workers say they know; empty: nobody has said.
  using Callback = std::function<void(const PreflightResult&)>;
  void Check(QuantizationSpec spec, std::set<std::string> architectures, Callback done);
  KnownArchitectures& architectures() { return architectures_; }

  // The same at once, on the caller's thread.
  PreflightResult Look(const QuantizationSpec& spec,
                       const std::set<std::string>& architectures) const;

 private:
  const StoreOptions store_;
  const bool shares_files_;
  KnownArchitectures architectures_;
  CallbackThread thread_;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_SERVICE_PREFLIGHT_H_
