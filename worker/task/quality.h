// How good an artifact is: perplexity before and after, how far its predictions are from the
// original's, what rounding to nearest would have given, and what both write. Internal to
// worker/task.
//
// Cost: the perplexity of both, which is a forward pass over all windows each; of the rest the
// predictions of the first windows, from the same pass; another pass for the baseline, if the spec
// asks for one; and a few dozen tokens of text where both models fit the device's memory one after
// the other. Errors: those of EvaluatePerplexity; kFailedPrecondition (QUALITY_TARGET).
#ifndef UNIQUANF_WORKER_TASK_QUALITY_H_
#define UNIQUANF_WORKER_TASK_QUALITY_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "common/artifact/manifest.h"
#include "common/job/report.h"
#include "worker/model/checkpoint.h"
#include "worker/task/plan.h"
#include "worker/task/task_runner.h"

namespace uniquanf {

struct Evaluation {
  ManifestEvaluation perplexity;
  QualityReport report;
  std::vector<std::string> warnings;
};

// `modules` are the artifact's. Fails with QUALITY_TARGET where the spec's limit is passed.
absl::StatusOr<Evaluation> EvaluateQuality(const Plan& plan, const Checkpoint& original,
                                           const Checkpoint& artifact,
                                           const std::vector<ManifestModule>& modules,
                                           const std::vector<int32_t>& tokens,
                                           const TaskEnvironment& env);

// Tokens that are read and written for the texts of a report, of both models.
int64_t ReportTextTokens();

// The verdict in words; exposed for tests.
std::string QualityVerdict(const ManifestEvaluation& perplexity, const QualityReport& report);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_QUALITY_H_
