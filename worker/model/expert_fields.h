// What families with experts read alike.
//
// Errors: those of config_fields.h.
#ifndef UNIQUANF_WORKER_MODEL_EXPERT_FIELDS_H_
#define UNIQUANF_WORKER_MODEL_EXPERT_FIELDS_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/model/family_fields.h"

namespace uniquanf {

// Names and defaults of the numbers of experts, of those chosen and of their inner size. Without a
// default the field must be there.
struct ExpertNumbers {
  absl::string_view experts = "num_experts";
  std::optional<int64_t> default_experts;
  absl::string_view chosen = "num_experts_per_tok";
  std::optional<int64_t> default_chosen;
  absl::string_view size = "moe_intermediate_size";
  std::optional<int64_t> default_size;
};
absl::Status ReadExpertNumbers(const Fields& fields, const ExpertNumbers& numbers,
                               CommonFields* common);

// DeepSeek's recipe, with its fields norm_topk_prob, n_group, topk_group, routed_scaling_factor:
// sigmoid scores, a correction that counts for the choice only (tensor
// GATE.e_score_correction_bias), weights divided by their sum + 1e-20.
absl::Status ReadSigmoidRouter(const Fields& fields, bool normalize, double scale,
                               int64_t num_groups, int64_t top_groups, ExpertsTraits* experts);

// An MLP for all tokens, `count` times as large as an expert, below `module`
// ("mlp.shared_experts").
void UseSharedExperts(const std::string& module, int64_t count, ExpertsTraits* experts);

// Blocks with experts, but for those layers for which `dense` is true: these have the dense MLP.
absl::StatusOr<ModelConfig> BuildExpertLayers(
    CommonFields common, const std::function<bool(int)>& dense,
    const std::function<void(int, BlockTraits*)>& change = nullptr);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_EXPERT_FIELDS_H_
