#include "worker/model/expert_fields.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace uniquanf {

absl::Status ReadExpertNumbers(const Fields& fields, const ExpertNumbers& numbers,
                               CommonFields* common) {
  ExpertsTraits& experts = common->block.experts;
  UQ_ASSIGN_OR_RETURN(
      experts.router.num_experts,
      ReadNumExperts(fields, numbers.experts, numbers.default_experts, common->model.num_layers));
  UQ_ASSIGN_OR_RETURN(experts.router.top_k, fields.Integer(numbers.chosen, numbers.default_chosen,
                                                           1, experts.router.num_experts));
  UQ_ASSIGN_OR_RETURN(experts.size,
                      fields.Integer(numbers.size, numbers.default_size, 1, kMaxIntermediate));
  return absl::OkStatus();
}

absl::Status ReadSigmoidRouter(const Fields& fields, bool normalize, double scale,
                               int64_t num_groups, int64_t top_groups, ExpertsTraits* experts) {
  ops::RouterShape& router = experts->router;
  UQ_ASSIGN_OR_RETURN(const std::string scoring, fields.String("scoring_func", "sigmoid"));
  if (scoring != "sigmoid") {
    return ConfigError(absl::StrCat("field scoring_func is \"", scoring.substr(0, 60),
                                    "\"; only sigmoid is supported"));
  }
  router.sigmoid = true;
  router.epsilon = 1e-20f;
  UQ_ASSIGN_OR_RETURN(router.normalize, fields.Boolean("norm_topk_prob", normalize));
  UQ_ASSIGN_OR_RETURN(router.scale, ReadFactor(fields, "routed_scaling_factor", scale));
  UQ_ASSIGN_OR_RETURN(router.num_groups,
                      fields.Integer("n_group", num_groups, 1, router.num_experts));
  UQ_ASSIGN_OR_RETURN(router.top_groups,
                      fields.Integer("topk_group", top_groups, 1, router.num_groups));
  if (router.num_experts % router.num_groups != 0 ||
      router.top_k > router.num_experts / router.num_groups * router.top_groups) {
    return ConfigError(absl::StrCat(
        "n_group = ", router.num_groups, " and topk_group = ", router.top_groups, " do not fit ",
        router.num_experts, " experts of which ", router.top_k, " are chosen"));
  }
  experts->correction = absl::StrCat(experts->router_module, ".e_score_correction_bias");
  return absl::OkStatus();
}

void UseSharedExperts(const std::string& module, int64_t count, ExpertsTraits* experts) {
  experts->shared.size = count * experts->size;
  experts->shared.activation = experts->activation;
  experts->shared.gate = module + ".gate_proj";
  experts->shared.up = module + ".up_proj";
  experts->shared.down = module + ".down_proj";
}

absl::StatusOr<ModelConfig> BuildExpertLayers(
    CommonFields common, const std::function<bool(int)>& dense,
    const std::function<void(int, BlockTraits*)>& change) {
  return BuildLayers(std::move(common), [&](int layer, BlockTraits* block) {
    if (dense(layer)) {
      block->experts = {};
    } else {
      block->mlp.size = 0;
    }
    if (change != nullptr) change(layer, block);
  });
}

}  // namespace uniquanf
