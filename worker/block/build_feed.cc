// MLPs and experts of block_traits.h as tensors and nodes.
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/block/block_builder.h"

namespace uniquanf {

using Linear = BlockBuilder::Linear;

void FeedBuilder::AddTensors() {
  if (mlp_traits_.size > 0) mlp_ = AddMlp(mlp_traits_);
  if (t_.router.num_experts > 0) AddExperts();
}

FeedBuilder::Mlp FeedBuilder::AddMlp(const MlpTraits& m) {
  BlockBuilder::Part gate, up;
  if (!m.fused_module.empty()) {
    const int64_t first = m.fused_up_first ? m.size : 0;
    gate = {m.fused_module, 2 * m.size, first, m.size, 2 * m.size};
    up = {m.fused_module, 2 * m.size, m.size - first, m.size, 2 * m.size};
  }
  const int64_t h = b_.hidden_size();
  Mlp mlp;
  if (m.gated) mlp.gate = b_.AddLinear(m.gate, m.size, h, m.bias, gate, m.transposed);
  mlp.up = b_.AddLinear(m.up, m.size, h, m.bias, up, m.transposed);
  mlp.down = b_.AddLinear(m.down, h, m.size, m.bias, {}, m.transposed);
  if (m.xielu.empty()) return mlp;
  const struct {
    const char* name;
    Shape stored;
  } kParameters[] = {{".alpha_p", {1}}, {".alpha_n", {1}}, {".beta", {}}, {".eps", {}}};
  for (int i = 0; i < 4; ++i) {
    TensorSpec parameter;
    parameter.shape = {1};
    parameter.stored.name = absl::StrCat(m.xielu, kParameters[i].name);
    parameter.stored.shape = kParameters[i].stored;
    mlp.xielu[i] = b_.AddTensor(std::move(parameter));
  }
  return mlp;
}

void FeedBuilder::AddExperts() {
  const int64_t h = b_.hidden_size();
  const int num_experts = t_.router.num_experts;
  experts_.router_weight = b_.AddMatrix(t_.router_module, num_experts, h).weight;
  if (t_.router_bias) {
    experts_.router_bias = b_.AddVector(absl::StrCat(t_.router_module, ".bias"), {num_experts});
  }
  if (!t_.correction.empty()) {
    Shape shape = {num_experts};
    experts_.correction = b_.AddVector(
        t_.correction, t_.correction_is_row ? Shape{1, num_experts} : std::move(shape));
  }
  if (!t_.expert_scale.empty()) experts_.scales = b_.AddVector(t_.expert_scale, {num_experts});
  if (!t_.router_norm_scale.empty()) {
    NormTraits kind = norm_;
    kind.weight = kind.bias = false;
    router_norm_ = b_.AddNorm("router_norm", kind);
    router_norm_.weight = b_.AddVector(t_.router_norm_scale, {h});
  }
  input_norm_ = b_.AddNorm(t_.input_norm, norm_);
  output_norm_ = b_.AddNorm(t_.output_norm, norm_);
  dense_output_norm_ = b_.AddNorm(t_.dense_output_norm, norm_);
  for (int e = 0; e < num_experts; ++e) {
    Linear gate;
    if (t_.gated) gate = AddExpertLinear(e, t_.gate, 0);
    const Linear up = AddExpertLinear(e, t_.up, 1), down = AddExpertLinear(e, t_.down, 2);
    // Without a gate the activation is taken of `up`.
    const Linear& first = t_.gated ? gate : up;
    experts_.experts.push_back({first.weight, t_.gated ? up.weight : -1, down.weight, first.bias,
                                t_.gated ? up.bias : -1, down.bias});
  }
  if (t_.shared.size > 0) shared_ = AddMlp(t_.shared);
  if (!t_.shared_gate.empty()) shared_gate_ = b_.AddMatrix(t_.shared_gate, 1, h);
}

// part 0, 1, 2: gate, up, down.
Linear FeedBuilder::AddExpertLinear(int expert, const std::string& suffix, int part) {
  const int64_t h = b_.hidden_size(), size = t_.size;
  const int64_t n = part == 2 ? h : size, k = part == 2 ? size : h;
  const std::string module = absl::StrCat(t_.experts, expert, suffix);
  const std::string& stacked = part == 2 ? t_.stacked_down : t_.stacked_gate_up;
  if (stacked.empty()) return b_.AddLinear(module, n, k, t_.bias, {}, false);
  TensorSpec weight;
  weight.module = module;
  weight.role = TensorRole::kLinear;
  weight.shape = {n, k};
  weight.stored.name = stacked;
  weight.stored.expert = expert;
  weight.stored.transposed = t_.stacked_transposed;
  const int64_t rows = part == 2 ? n : 2 * n;
  const int64_t num_experts = t_.router.num_experts;
  weight.stored.shape =
      t_.stacked_transposed ? Shape{num_experts, k, rows} : Shape{num_experts, rows, k};
  if (part < 2) {
    const bool alternate = t_.stacked_interleaved;
    weight.stored.row_offset = alternate ? part : part * n;
    weight.stored.row_run = alternate ? 1 : n;
    weight.stored.row_period = alternate ? 2 : 2 * n;
  }
  TensorSpec bias = weight;
  Linear linear = {b_.AddTensor(std::move(weight)), -1, n};
  if (t_.bias) {
    bias.module.clear();
    bias.role = TensorRole::kVector;
    bias.shape = {n};
    bias.stored.name = absl::StrCat(stacked, "_bias");
    bias.stored.shape = {num_experts, rows};
    bias.stored.transposed = false;
    linear.bias = b_.AddTensor(std::move(bias));
  }
  return linear;
}

int FeedBuilder::Apply(const Mlp& mlp, const MlpTraits& traits, int in) {
  const int up = b_.Apply(mlp.up, in);
  const int gate = traits.gated ? b_.Scale(b_.Apply(mlp.gate, in), traits.gate_factor) : -1;
  const int activated = b_.AddSlot(traits.size);
  if (mlp.xielu[0] >= 0) {
    b_.Append(XieluNode{up, activated, mlp.xielu[0], mlp.xielu[1], mlp.xielu[2], mlp.xielu[3]});
  } else {
    b_.Append(traits.gated ? ActivationNode{traits.activation, gate, up, activated}
                           : ActivationNode{traits.activation, up, -1, activated});
  }
  return b_.Scale(b_.Apply(mlp.down, activated), traits.out_factor);
}

int FeedBuilder::Experts(int in, int router_in) {
  experts_.in = in;
  experts_.router_in = router_in;
  experts_.out = b_.AddSlot(b_.hidden_size());
  experts_.router = t_.router;
  experts_.activation = t_.activation;
  experts_.size = t_.size;
  experts_.scale_input = t_.scale_input;
  const int routed = experts_.out;
  b_.Append(std::move(experts_));
  if (t_.shared.size == 0) return routed;
  int shared = Apply(shared_, t_.shared, in);
  if (shared_gate_.weight >= 0) shared = b_.Gate(shared, b_.Apply(shared_gate_, in));
  const int sum = b_.Add(routed, shared);
  return t_.average_shared ? b_.Scale(sum, 0.5f) : sum;
}

int FeedBuilder::AddNodes(int in, int residual) {
  if (t_.router.num_experts == 0) return Apply(mlp_, mlp_traits_, in);
  const int router_in =
      router_norm_.in_use ? b_.Scale(b_.Apply(router_norm_, residual), t_.router_input_factor) : in;
  // Experts with a norm of their own read the residual through it.
  const int expert_in = input_norm_.in_use ? b_.Apply(input_norm_, residual) : in;
  const int routed = b_.Apply(output_norm_, Experts(expert_in, router_in));
  if (mlp_traits_.size == 0) return routed;
  return b_.Add(routed, b_.Apply(dense_output_norm_, Apply(mlp_, mlp_traits_, in)));
}

}  // namespace uniquanf
