// Appends tensors and nodes to a BlockSpec: what the traits of block_traits.h are turned into.
// Internal to worker/block. Tensors come first, in the order in which they are listed; nodes may
// name them in another.
#ifndef UNIQUANF_WORKER_BLOCK_BLOCK_BUILDER_H_
#define UNIQUANF_WORKER_BLOCK_BLOCK_BUILDER_H_

#include <cstdint>
#include <string>
#include <utility>

#include "worker/block/block_traits.h"

namespace uniquanf {

class BlockBuilder {
 public:
  struct Norm {
    bool in_use = false;
    ops::NormShape shape;
    int weight = -1, bias = -1;
  };
  struct Linear {
    int weight = -1, bias = -1;
    int64_t num_outputs = 0;
  };
  // Where the rows of a linear layer lie in a stored module that holds more than them. An empty
  // module: the layer is stored by itself.
  struct Part {
    std::string module;  // stored
    int64_t num_rows;    // of the stored tensor
    int64_t offset, run, period;
  };

  explicit BlockBuilder(int64_t hidden_size) {
    spec_.hidden_size = hidden_size;
    input_ = spec_.AddSlot(hidden_size);
  }
  int64_t hidden_size() const { return spec_.hidden_size; }
  int input() const { return input_; }
  BlockSpec Take() { return std::move(spec_); }

  // Tensors.
  int AddTensor(TensorSpec tensor) { return spec_.AddTensor(std::move(tensor)); }
  int AddVector(std::string stored_name, Shape shape, float added = 0);
  int AddConstant(std::vector<float> values);
  // Of rows of shape.back() elements; an empty shape is the hidden size. Without a module: none.
  Norm AddNorm(const std::string& module, const NormTraits& kind, Shape shape = {});
  Linear AddLinear(const std::string& module, int64_t n, int64_t k, bool has_bias, const Part& part,
                   bool transposed);
  // A linear layer that is never quantized.
  Linear AddMatrix(const std::string& module, int64_t n, int64_t k);

  // Nodes; each returns the slot of its output. A norm that is not in use gives its input, a factor
  // of 1 and a limit of 0 do nothing.
  int Apply(const Norm& norm, int in);
  int Apply(const Linear& linear, int in);
  int Add(int a, int b, float factor = 1);
  int Scale(int in, float factor);
  int ScaleBy(int in, int tensor);
  int Clip(int in, float limit);
  int Gate(int in, int gate);
  int Rope(int in, int table, const ops::RopeShape& shape);
  int Slice(int in, int num_heads, int64_t head_size, int64_t offset, int64_t width);
  int Join(int a, int b, int num_heads, bool b_shared);
  int AddSlot(int64_t width) { return spec_.AddSlot(width); }
  int64_t width(int slot) const { return spec_.slots[slot]; }
  void Append(Node node) { spec_.nodes.push_back(std::move(node)); }

 private:
  BlockSpec spec_;
  int input_;
};

// What mixes tokens: attention in its forms.
class AttentionBuilder {
 public:
  AttentionBuilder(const BlockTraits& traits, BlockBuilder* builder)
      : t_(traits.attention), norm_(traits.norm), b_(*builder) {}
  void AddTensors();
  int AddNodes(int in);

 private:
  BlockBuilder::Part QkvPart(int part) const;
  BlockBuilder::Norm AddHeadNorm(const std::string& module, int64_t heads);
  void AddLatentTensors();
  int AddLatentNodes(int in);
  int Attend(int queries, int keys, int values, int64_t value_dim);
  int Rope(int in, int num_heads);
  int64_t value_dim() const { return t_.value_dim != 0 ? t_.value_dim : t_.head_dim; }

  const AttentionTraits& t_;
  const NormTraits& norm_;
  BlockBuilder& b_;
  BlockBuilder::Norm q_norm_, k_norm_, v_norm_, latent_q_norm_, latent_kv_norm_;
  BlockBuilder::Linear q_, k_, v_, o_, latent_q_, latent_kv_, expand_;
  int sinks_ = -1, slopes_ = -1;
};

// What mixes tokens without attention.
class RecurrentBuilder {
 public:
  RecurrentBuilder(const BlockTraits& traits, BlockBuilder* builder)
      : t_(traits.recurrent), b_(*builder) {}
  void AddTensors();
  int AddNodes(int in);

 private:
  struct Conv {
    int weight = -1, bias = -1;
  };
  struct Parts {
    int q = -1, k = -1, v = -1, z = -1, a = -1, b = -1;
  };
  Conv AddConv(const std::string& module, int64_t offset, int64_t count, int64_t total);
  int Convolve(int in, const Conv& conv);
  int ConvolveAndActivate(int in, const Conv& conv);
  int Multiply(ops::Activation kind, int gate, int in);
  int AddConvolutionNodes(int in);
  Parts Project(int in);
  int Normalize(int in, float factor);
  int64_t keys_width() const { return static_cast<int64_t>(t_.num_key_heads) * t_.key_dim; }
  int64_t values_width() const { return static_cast<int64_t>(t_.num_heads) * t_.value_dim; }

  const RecurrentTraits& t_;
  BlockBuilder& b_;
  BlockBuilder::Linear in_, z_, ba_, a_, out_;
  Conv conv_[3];  // q, k, v
  BlockBuilder::Norm norm_;
  int a_log_ = -1, dt_bias_ = -1, skip_ = -1;
};

// What works on each token: the dense MLP, a mixture of experts, or the sum of both.
class FeedBuilder {
 public:
  FeedBuilder(const BlockTraits& traits, BlockBuilder* builder)
      : mlp_traits_(traits.mlp), t_(traits.experts), norm_(traits.norm), b_(*builder) {}
  void AddTensors();
  // `residual` is what the block's state is before the MLP's norm, `in` after it.
  int AddNodes(int in, int residual);

 private:
  struct Mlp {
    BlockBuilder::Linear gate, up, down;
    int xielu[4] = {-1, -1, -1, -1};
  };
  Mlp AddMlp(const MlpTraits& traits);
  void AddExperts();
  BlockBuilder::Linear AddExpertLinear(int expert, const std::string& suffix, int part);
  int Apply(const Mlp& mlp, const MlpTraits& traits, int in);
  int Experts(int in, int router_in);

  const MlpTraits& mlp_traits_;
  const ExpertsTraits& t_;
  const NormTraits& norm_;
  BlockBuilder& b_;
  Mlp mlp_, shared_;
  BlockBuilder::Linear shared_gate_;
  BlockBuilder::Norm router_norm_, input_norm_, output_norm_, dense_output_norm_;
  ExpertsNode experts_ = {};
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_BLOCK_BLOCK_BUILDER_H_
