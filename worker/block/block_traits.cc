#include "worker/block/block_traits.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

namespace uniquanf {
namespace {

// Where the rows of a linear layer lie in a stored module that holds more than them.
struct Part {
  std::string module;  // stored
  int64_t num_rows;    // of the stored tensor
  int64_t offset, run, period;
};

// Appends tensors and nodes to a spec. Tensors come first, in the order in which they are listed;
// nodes may name them in another.
class Builder {
 public:
  explicit Builder(const BlockTraits& traits) : traits_(traits) {
    spec_.hidden_size = traits.hidden_size;
    input_ = spec_.AddSlot(traits.hidden_size);
  }

  BlockSpec Build() {
    AddTensors();
    const int attention_input = Apply(attention_input_norm_, input_);
    const int attention = Apply(attention_output_norm_, Attention(attention_input));
    if (traits_.parallel) {
      const int mlp_input =
          mlp_input_norm_.in_use ? Apply(mlp_input_norm_, input_) : attention_input;
      const int mlp = Apply(mlp_output_norm_, Feed(mlp_input));
      Add(Add(input_, attention, traits_.residual_factor), mlp, traits_.residual_factor);
    } else {
      const int hidden = Add(input_, attention, traits_.residual_factor);
      const int mlp = Apply(mlp_output_norm_, Feed(Apply(mlp_input_norm_, hidden)));
      Add(hidden, mlp, traits_.residual_factor);
    }
    return std::move(spec_);
  }

 private:
  struct Norm {
    bool in_use = false;
    ops::NormShape shape;
    int weight = -1, bias = -1;
  };
  struct Linear {
    int weight = -1, bias = -1;
    int64_t num_outputs = 0;
  };
  struct Mlp {
    Linear gate, up, down;
  };

  void AddTensors() {
    const AttentionTraits& a = traits_.attention;
    attention_input_norm_ = AddNorm(traits_.attention_input_norm, traits_.norm);
    attention_output_norm_ = AddNorm(traits_.attention_output_norm, traits_.norm);
    mlp_input_norm_ = AddNorm(traits_.mlp_input_norm, traits_.norm);
    mlp_output_norm_ = AddNorm(traits_.mlp_output_norm, traits_.norm);
    q_norm_ = AddHeadNorm(a.q_norm, a.num_heads);
    k_norm_ = AddHeadNorm(a.k_norm, a.num_kv_heads);
    if (!a.sinks.empty()) sinks_ = AddVector(a.sinks, {a.num_heads});
    if (!a.alibi.empty()) {
      TensorSpec slopes;
      slopes.shape = {a.num_heads};
      slopes.stored.constant = a.alibi;
      slopes_ = spec_.AddTensor(std::move(slopes));
    }
    const int64_t h = traits_.hidden_size, d = a.head_dim;
    const int64_t q_width = a.num_heads * d, kv_width = a.num_kv_heads * d;
    q_ = AddLinear(a.q, q_width, h, a.qkv_bias, QkvPart(0), a.transposed);
    k_ = AddLinear(a.k, kv_width, h, a.qkv_bias, QkvPart(1), a.transposed);
    v_ = AddLinear(a.v, kv_width, h, a.qkv_bias, QkvPart(2), a.transposed);
    o_ = AddLinear(a.o, h, q_width, a.o_bias, {}, a.transposed);
    if (traits_.mlp.size > 0) mlp_ = AddMlp(traits_.mlp);
    if (traits_.experts.router.num_experts > 0) AddExperts();
  }

  // Part 0, 1, 2: q, k, v.
  Part QkvPart(int part) const {
    const AttentionTraits& a = traits_.attention;
    const int64_t d = a.head_dim, q = a.num_heads * d, kv = a.num_kv_heads * d;
    const int64_t group = q / a.num_kv_heads;
    switch (a.fused) {
      case AttentionTraits::Fused::kNone:
        break;
      case AttentionTraits::Fused::kInOrder: {
        const int64_t offset = part == 0 ? 0 : q + (part - 1) * kv;
        return {a.fused_module, q + 2 * kv, offset, part == 0 ? q : kv, q + 2 * kv};
      }
      case AttentionTraits::Fused::kPerGroup: {
        const int64_t offset = part == 0 ? 0 : group + (part - 1) * d;
        return {a.fused_module, q + 2 * kv, offset, part == 0 ? group : d, group + 2 * d};
      }
      case AttentionTraits::Fused::kPerHead:
        return {a.fused_module, 3 * q, part * d, d, 3 * d};
    }
    return {};
  }

  Mlp AddMlp(const MlpTraits& m) {
    Part gate, up;
    if (!m.fused_module.empty()) {
      const int64_t first = m.fused_up_first ? m.size : 0;
      gate = {m.fused_module, 2 * m.size, first, m.size, 2 * m.size};
      up = {m.fused_module, 2 * m.size, m.size - first, m.size, 2 * m.size};
    }
    const int64_t h = traits_.hidden_size;
    Mlp mlp;
    if (m.gated) mlp.gate = AddLinear(m.gate, m.size, h, m.bias, gate, m.transposed);
    mlp.up = AddLinear(m.up, m.size, h, m.bias, up, m.transposed);
    mlp.down = AddLinear(m.down, h, m.size, m.bias, {}, m.transposed);
    return mlp;
  }

  void AddExperts() {
    const ExpertsTraits& x = traits_.experts;
    const int64_t h = traits_.hidden_size;
    const int num_experts = x.router.num_experts;
    TensorSpec router;
    router.module = x.router_module;
    router.role = TensorRole::kMatrix;
    router.shape = router.stored.shape = {num_experts, h};
    router.stored.name = absl::StrCat(x.router_module, ".weight");
    experts_.router_weight = spec_.AddTensor(std::move(router));
    if (x.router_bias) {
      experts_.router_bias = AddVector(absl::StrCat(x.router_module, ".bias"), {num_experts});
    }
    if (!x.correction.empty()) experts_.correction = AddVector(x.correction, {num_experts});
    for (int e = 0; e < num_experts; ++e) {
      const Linear gate = AddExpertLinear(e, x.gate, 0), up = AddExpertLinear(e, x.up, 1);
      const Linear down = AddExpertLinear(e, x.down, 2);
      experts_.experts.push_back(
          {gate.weight, up.weight, down.weight, gate.bias, up.bias, down.bias});
    }
    if (x.shared.size > 0) shared_ = AddMlp(x.shared);
    if (x.shared_gate.empty()) return;
    TensorSpec gate;
    gate.module = x.shared_gate;
    gate.role = TensorRole::kMatrix;
    gate.shape = gate.stored.shape = {1, h};
    gate.stored.name = absl::StrCat(x.shared_gate, ".weight");
    shared_gate_ = {spec_.AddTensor(std::move(gate)), -1, 1};
  }

  // part 0, 1, 2: gate, up, down.
  Linear AddExpertLinear(int expert, const std::string& suffix, int part) {
    const ExpertsTraits& x = traits_.experts;
    const int64_t h = traits_.hidden_size, size = x.size;
    const int64_t n = part == 2 ? h : size, k = part == 2 ? size : h;
    const std::string module = absl::StrCat(x.experts, expert, suffix);
    const std::string& stacked = part == 2 ? x.stacked_down : x.stacked_gate_up;
    if (stacked.empty()) return AddLinear(module, n, k, x.bias, {}, false);
    TensorSpec weight;
    weight.module = module;
    weight.role = TensorRole::kLinear;
    weight.shape = {n, k};
    weight.stored.name = stacked;
    weight.stored.expert = expert;
    weight.stored.transposed = x.stacked_transposed;
    const int64_t rows = part == 2 ? n : 2 * n;
    const int64_t num_experts = x.router.num_experts;
    weight.stored.shape =
        x.stacked_transposed ? Shape{num_experts, k, rows} : Shape{num_experts, rows, k};
    if (part < 2) {
      const bool alternate = x.stacked_interleaved;
      weight.stored.row_offset = alternate ? part : part * n;
      weight.stored.row_run = alternate ? 1 : n;
      weight.stored.row_period = alternate ? 2 : 2 * n;
    }
    TensorSpec bias = weight;
    Linear linear = {spec_.AddTensor(std::move(weight)), -1, n};
    if (x.bias) {
      bias.module.clear();
      bias.role = TensorRole::kVector;
      bias.shape = {n};
      bias.stored.name = absl::StrCat(stacked, "_bias");
      bias.stored.shape = {num_experts, rows};
      bias.stored.transposed = false;
      linear.bias = spec_.AddTensor(std::move(bias));
    }
    return linear;
  }

  int AddVector(std::string stored_name, Shape shape, float added = 0) {
    TensorSpec tensor;
    tensor.shape = shape;
    tensor.stored.name = std::move(stored_name);
    tensor.stored.shape = std::move(shape);
    tensor.stored.added = added;
    return spec_.AddTensor(std::move(tensor));
  }

  Norm AddNorm(const std::string& module, const NormTraits& kind, Shape shape = {}) {
    Norm norm;
    if (module.empty()) return norm;
    if (shape.empty()) shape = {traits_.hidden_size};
    norm.in_use = true;
    norm.shape = {kind.center, shape.back(), kind.eps};
    if (kind.weight) norm.weight = AddVector(absl::StrCat(module, ".weight"), shape, kind.added);
    if (kind.bias) norm.bias = AddVector(absl::StrCat(module, ".bias"), shape);
    return norm;
  }

  Norm AddHeadNorm(const std::string& module, int64_t heads) {
    const AttentionTraits& a = traits_.attention;
    switch (a.head_norm) {
      case AttentionTraits::HeadNorm::kNone:
        break;
      case AttentionTraits::HeadNorm::kShared:
        return AddNorm(module, a.head_norm_kind, {a.head_dim});
      case AttentionTraits::HeadNorm::kPerHead:
        return AddNorm(module, a.head_norm_kind, {heads, a.head_dim});
      case AttentionTraits::HeadNorm::kProjection:
        return AddNorm(module, a.head_norm_kind, {heads * a.head_dim});
    }
    return {};
  }

  // `part` with an empty module: the layer is stored by itself.
  Linear AddLinear(const std::string& module, int64_t n, int64_t k, bool has_bias, const Part& part,
                   bool transposed) {
    const std::string stored = part.module.empty() ? module : part.module;
    TensorSpec weight;
    weight.module = module;
    weight.role = TensorRole::kLinear;
    weight.shape = {n, k};
    StoredForm& form = weight.stored;
    form.name = absl::StrCat(stored, ".weight");
    form.transposed = transposed;
    int64_t rows = n;
    if (!part.module.empty()) {
      rows = part.num_rows;
      form.row_offset = part.offset;
      form.row_run = part.run;
      form.row_period = part.period;
    }
    form.shape = transposed ? Shape{k, rows} : Shape{rows, k};
    TensorSpec bias = weight;
    Linear linear = {spec_.AddTensor(std::move(weight)), -1, n};
    if (has_bias) {
      bias.module.clear();
      bias.role = TensorRole::kVector;
      bias.shape = {n};
      bias.stored.name = absl::StrCat(stored, ".bias");
      bias.stored.shape = {rows};
      bias.stored.transposed = false;
      linear.bias = spec_.AddTensor(std::move(bias));
    }
    return linear;
  }

  // Nodes. A norm that is not in use gives its input.
  int Apply(const Norm& norm, int in) {
    if (!norm.in_use) return in;
    const int out = spec_.AddSlot(spec_.slots[in]);
    spec_.nodes.push_back(NormNode{in, out, norm.shape, norm.weight, norm.bias});
    return out;
  }
  int Apply(const Linear& linear, int in) {
    const int out = spec_.AddSlot(linear.num_outputs);
    spec_.nodes.push_back(LinearNode{in, out, linear.weight, linear.bias});
    return out;
  }
  int Add(int a, int b, float factor = 1) {
    const int out = spec_.AddSlot(spec_.slots[a]);
    spec_.nodes.push_back(AddNode{a, b, out, factor});
    return out;
  }
  int Clip(int in) {
    if (traits_.attention.clip == 0) return in;
    const int out = spec_.AddSlot(spec_.slots[in]);
    spec_.nodes.push_back(ClipNode{in, out, traits_.attention.clip});
    return out;
  }
  int Rope(int in, int num_heads) {
    const AttentionTraits& a = traits_.attention;
    if (a.rope_table < 0) return in;
    const int out = spec_.AddSlot(spec_.slots[in]);
    const ops::RopeShape shape = {num_heads, a.head_dim, 0, a.rope_interleaved};
    spec_.nodes.push_back(RopeNode{in, out, a.rope_table, shape});
    return out;
  }

  int Attention(int in) {
    const AttentionTraits& a = traits_.attention;
    // Last to first: gradients of the input are then added in the order q, k, v.
    const int values = Clip(Apply(v_, in));
    int keys = Clip(Apply(k_, in));
    int queries = Clip(Apply(q_, in));
    if (!a.norm_after_rope) {
      queries = Apply(q_norm_, queries);
      keys = Apply(k_norm_, keys);
    }
    queries = Rope(queries, a.num_heads);
    keys = Rope(keys, a.num_kv_heads);
    if (a.norm_after_rope) {
      queries = Apply(q_norm_, queries);
      keys = Apply(k_norm_, keys);
    }
    ops::AttentionShape shape;
    shape.num_heads = a.num_heads;
    shape.num_kv_heads = a.num_kv_heads;
    shape.head_dim = a.head_dim;
    shape.window = a.window;
    shape.softcap = a.softcap;
    shape.scale = a.scale != 0
                      ? a.scale
                      : static_cast<float>(1.0 / std::sqrt(static_cast<double>(a.head_dim)));
    const int out = spec_.AddSlot(q_.num_outputs);
    spec_.nodes.push_back(AttentionNode{queries, keys, values, out, shape, sinks_, slopes_});
    return Apply(o_, out);
  }

  int Apply(const Mlp& mlp, const MlpTraits& traits, int in) {
    const int up = Apply(mlp.up, in);
    const int gate = traits.gated ? Apply(mlp.gate, in) : -1;
    const int activated = spec_.AddSlot(traits.size);
    spec_.nodes.push_back(traits.gated ? ActivationNode{traits.activation, gate, up, activated}
                                       : ActivationNode{traits.activation, up, -1, activated});
    return Apply(mlp.down, activated);
  }

  int Experts(int in) {
    const ExpertsTraits& x = traits_.experts;
    experts_.in = experts_.router_in = in;
    experts_.out = spec_.AddSlot(traits_.hidden_size);
    experts_.router = x.router;
    experts_.activation = x.activation;
    experts_.size = x.size;
    const int routed = experts_.out;
    spec_.nodes.push_back(std::move(experts_));
    if (x.shared.size == 0) return routed;
    int shared = Apply(shared_, x.shared, in);
    if (shared_gate_.weight >= 0) {
      const int gate = Apply(shared_gate_, in);
      const int gated = spec_.AddSlot(traits_.hidden_size);
      spec_.nodes.push_back(SigmoidGateNode{shared, gate, gated});
      shared = gated;
    }
    return Add(routed, shared);
  }

  // The dense MLP, the experts, or the sum of both.
  int Feed(int in) {
    if (traits_.experts.router.num_experts == 0) return Apply(mlp_, traits_.mlp, in);
    const int routed = Experts(in);
    return traits_.mlp.size == 0 ? routed : Add(routed, Apply(mlp_, traits_.mlp, in));
  }

  const BlockTraits& traits_;
  BlockSpec spec_;
  int input_;
  Norm attention_input_norm_, attention_output_norm_, mlp_input_norm_, mlp_output_norm_;
  Norm q_norm_, k_norm_;
  Linear q_, k_, v_, o_, shared_gate_;
  Mlp mlp_, shared_;
  int sinks_ = -1, slopes_ = -1;
  ExpertsNode experts_ = {};
};

}  // namespace

BlockSpec BuildBlock(const BlockTraits& traits) { return Builder(traits).Build(); }

}  // namespace uniquanf
