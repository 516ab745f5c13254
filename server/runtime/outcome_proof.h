// Whether what a worker says it has made is there: the objects of its results, and the artifact
// with the manifest of the digest that it named. Asked before such a result is believed, on a
// thread of its own, since an object store takes its time.
//
// Thread safety: thread-safe. Lifetime: the destructor runs what was asked before.
#ifndef UNIQUANF_SERVER_RUNTIME_OUTCOME_PROOF_H_
#define UNIQUANF_SERVER_RUNTIME_OUTCOME_PROOF_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/signing_key.h"
#include "common/object_store/open_data.h"
#include "server/core/types.h"
#include "server/runtime/callback_thread.h"

namespace uniquanf::server {

struct OutcomeClaim {
  size_t lease = 0;  // for whoever asks: which report it is of
  std::string job, tenant, job_uid;
  std::string output_uri;  // of the job: where its artifact was to go
  TaskKind kind = TaskKind::kPrepare;
  TaskOutcome outcome;
  // What the job's tenant may name, and how: the artifact is read through it. Null: as the server
  // may.
  std::shared_ptr<const DataAccess> data;
  std::vector<VerifyingKey> signing_keys;  // of the worker; not empty: the artifact is to be signed
};

class OutcomeProof {
 public:
  explicit OutcomeProof(std::string object_root, StoreOptions store = {})
      : object_root_(std::move(object_root)), store_options_(std::move(store)) {}
  ~OutcomeProof() { thread_.Stop(); }

  // For each claim what is false about it, "" where nothing is. Errors: a store cannot be asked now
  // (kUnavailable, OUTCOME_NOT_PROVED): the worker is to come again.
  using Callback = std::function<void(absl::StatusOr<std::vector<std::string>>)>;
  void Check(std::vector<OutcomeClaim> claims, Callback done) const;

 private:
  absl::StatusOr<std::string> FindFault(const OutcomeClaim& claim) const;
  absl::StatusOr<std::string> FindFaultOfArtifact(const OutcomeClaim& claim) const;

  const std::string object_root_;
  const StoreOptions store_options_;
  mutable std::shared_ptr<ObjectStore> root_;  // the thread's own
  mutable CallbackThread thread_;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_RUNTIME_OUTCOME_PROOF_H_
