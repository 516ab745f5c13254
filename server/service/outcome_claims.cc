#include "server/service/outcome_claims.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/secret.h"
#include "uniquanf/v1/job.pb.h"

namespace uniquanf::server {
namespace {

constexpr int kMaxLayerReports = 4096;
constexpr int kMaxWarnings = 4096;
constexpr size_t kMaxText = 4096;

bool IsSize(double value) { return std::isfinite(value) && value >= 0; }
bool IsLoss(double value) { return !std::isnan(value) && value >= 0; }

const Task* FindTask(const JobView& view, const LeaseReport& report, const std::string& session) {
  for (const auto& task : view.tasks) {
    if (task->id == report.task && task->lease_id == report.lease_id && task->session == session &&
        SameSecret(task->lease_token_sha256, report.token_sha256)) {
      return task.get();
    }
  }
  return nullptr;
}

}  // namespace

std::string FindNonsense(const v1::TaskOutcome& outcome) {
  const v1::JobReport& report = outcome.report();
  if (outcome.artifact().size_bytes() < 0 || report.model_size_bytes() < 0 ||
      report.artifact_size_bytes() < 0 || report.num_evaluation_tokens() < 0) {
    return "a size or a number of tokens is negative";
  }
  if (!IsSize(report.average_bits())) return "average_bits is no number of bits";
  if ((report.has_perplexity_before() && !IsLoss(report.perplexity_before())) ||
      (report.has_perplexity_after() && !IsLoss(report.perplexity_after()))) {
    return "a perplexity is none";
  }
  if (report.layers_size() > kMaxLayerReports || report.warnings_size() > kMaxWarnings) {
    return "it reports more layers or warnings than any model has";
  }
  for (const v1::LayerReport& layer : report.layers()) {
    if (layer.layer() < 0 || layer.bits() < 0 || !IsLoss(layer.initial_loss()) ||
        !IsLoss(layer.final_loss())) {
      return absl::StrCat("the report of layer ", layer.layer(), " holds what is no number");
    }
  }
  for (const std::string& warning : report.warnings()) {
    if (warning.size() > kMaxText) return "a warning is longer than 4096 bytes";
  }
  if (outcome.artifact().uri().size() > kMaxText) return "the artifact's URI is too long";
  return "";
}

std::vector<OutcomeClaim> ClaimsOf(const SynchronizeEvent& event, const PublishedState& published) {
  std::vector<OutcomeClaim> claims;
  for (size_t i = 0; i < event.leases.size(); ++i) {
    const LeaseReport& report = event.leases[i];
    if (report.kind != LeaseReport::Kind::kSucceeded) continue;
    for (const JobView& view : published.FindAll(report.job, TenantScope())) {
      const Task* const task = FindTask(view, report, event.session);
      // A result that was taken before needs no second proof.
      if (task == nullptr || task->lease != LeaseStatus::kActive) continue;
      v1::QuantizationSpec spec;
      spec.ParseFromString(view.job->spec);
      OutcomeClaim& claim = claims.emplace_back();
      claim.lease = i;
      claim.job = view.job->id;
      claim.tenant = view.job->tenant;
      claim.job_uid = view.job->uid;
      claim.output_uri = spec.output_uri();
      claim.kind = task->kind;
      claim.outcome = report.outcome;
    }
  }
  return claims;
}

}  // namespace uniquanf::server
