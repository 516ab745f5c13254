#include "worker/task/window_inputs.h"

#include <algorithm>
#include <utility>

#include "common/base/random.h"
#include "common/base/status.h"
#include "worker/distill/window_schedule.h"
#include "worker/model/language_model.h"
#include "worker/task/content_store.h"
#include "worker/task/layer_inputs.h"
#include "worker/task/tokens.h"

namespace uniquanf {
namespace {

uint64_t DistillationSeed(uint64_t seed) {
  const Philox4 words = PhiloxAt(seed, /*stream=*/0x64697374696C6C /* "distill" */, 0);
  return static_cast<uint64_t>(words.v[1]) << 32 | words.v[0];
}

// Ids of the sequences in `used`, one after the other.
absl::StatusOr<std::vector<int32_t>> LoadTokens(const Plan& plan, const std::vector<int64_t>& used,
                                                const TaskEnvironment& env) {
  UQ_ASSIGN_OR_RETURN(const std::string bytes,
                      GetContent(env.work.get(), plan.calibration_sha256, kMaxTokenBytes));
  std::vector<int32_t> ids = TokensFromBytes(bytes);
  if (!plan.distillation_sha256.empty()) {
    UQ_ASSIGN_OR_RETURN(const std::string further,
                        GetContent(env.work.get(), plan.distillation_sha256, kMaxTokenBytes));
    const std::vector<int32_t> more = TokensFromBytes(further);
    ids.insert(ids.end(), more.begin(), more.end());
  }
  const int64_t length = plan.sequence_length;
  if (static_cast<int64_t>(ids.size()) !=
      (plan.num_samples + plan.num_distillation_samples) * length) {
    return InvalidInput("INVALID_PLAN", "the plan's tokens are not as many as it says");
  }
  std::vector<int32_t> chosen;
  chosen.reserve(used.size() * length);
  for (const int64_t sequence : used) {
    chosen.insert(chosen.end(), ids.begin() + sequence * length,
                  ids.begin() + (sequence + 1) * length);
  }
  return chosen;
}

absl::Status Forward(const TaskContext& context, int layer, const HostBlock& block,
                     const RopeTables& rope, const TaskEnvironment& env, SequenceBuffer* hidden) {
  const BlockSpec& spec = context.checkpoint->config().blocks[layer];
  UQ_ASSIGN_OR_RETURN(const BlockWeights weights, UploadBlock(env.backend, spec, env.act, block));
  return ForwardBlock(env.backend, spec, rope, weights, *hidden, hidden, env.stop);
}

}  // namespace

std::vector<int64_t> WindowSequences::Used() const {
  std::vector<int64_t> used = training;
  used.insert(used.end(), judges.begin(), judges.end());
  std::sort(used.begin(), used.end());
  used.erase(std::unique(used.begin(), used.end()), used.end());
  return used;
}

WindowSequences SequencesOf(const Plan& plan) {
  const distill::Pool pool = distill::MakePool(plan.num_samples, plan.num_distillation_samples);
  return {distill::StepSequences(pool, DistillationSeed(plan.spec.seed), plan.spec.distill_steps,
                                 plan.spec.distill_batch_size),
          pool.judges};
}

absl::StatusOr<WindowInputs> RecomputeWindowInputs(const TaskContext& context, int layer,
                                                   const std::vector<LayerResult>& before,
                                                   const RopeTables& rope,
                                                   const TaskEnvironment& env) {
  const Plan& plan = context.plan;
  WindowInputs inputs;
  inputs.sequences = SequencesOf(plan).Used();
  UQ_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, LoadTokens(plan, inputs.sequences, env));
  UQ_ASSIGN_OR_RETURN(
      inputs.target,
      EmbedSequences(env.backend, *context.checkpoint, env.act, SequenceBuffer::Placement::kHost,
                     ids, static_cast<int64_t>(inputs.sequences.size()), plan.sequence_length));
  UQ_ASSIGN_OR_RETURN(inputs.x, inputs.target.Clone());
  for (int i = 0; i < plan.num_layers; ++i) {
    if (IsCancelled(env)) return CancelledError();
    ReportProgress(env, "activations", i, plan.num_layers);
    UQ_ASSIGN_OR_RETURN(const HostBlock original, context.checkpoint->LoadBlock(i));
    UQ_RETURN_IF_ERROR(Forward(context, i, original, rope, env, &inputs.target));
    if (i >= layer) continue;
    UQ_ASSIGN_OR_RETURN(const HostBlock stored, LoadStoredBlock(context, before[i], env));
    UQ_RETURN_IF_ERROR(Forward(context, i, stored, rope, env, &inputs.x));
  }
  return inputs;
}

}  // namespace uniquanf
