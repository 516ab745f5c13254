#include "worker/block/block_builder.h"

#include "absl/strings/str_cat.h"

namespace uniquanf {

int BlockBuilder::AddVector(std::string stored_name, Shape shape, float added) {
  TensorSpec tensor;
  tensor.shape = shape;
  tensor.stored.name = std::move(stored_name);
  tensor.stored.shape = std::move(shape);
  tensor.stored.added = added;
  return spec_.AddTensor(std::move(tensor));
}

int BlockBuilder::AddConstant(std::vector<float> values) {
  TensorSpec tensor;
  tensor.shape = {static_cast<int64_t>(values.size())};
  tensor.stored.constant = std::move(values);
  return spec_.AddTensor(std::move(tensor));
}

BlockBuilder::Norm BlockBuilder::AddNorm(const std::string& module, const NormTraits& kind,
                                         Shape shape) {
  Norm norm;
  if (module.empty()) return norm;
  if (shape.empty()) shape = {hidden_size()};
  norm.in_use = true;
  norm.shape = {kind.center, shape.back(), kind.eps};
  if (kind.weight) norm.weight = AddVector(absl::StrCat(module, ".weight"), shape, kind.added);
  if (kind.bias) norm.bias = AddVector(absl::StrCat(module, ".bias"), shape);
  return norm;
}

BlockBuilder::Linear BlockBuilder::AddLinear(const std::string& module, int64_t n, int64_t k,
                                             bool has_bias, const Part& part, bool transposed) {
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

BlockBuilder::Linear BlockBuilder::AddMatrix(const std::string& module, int64_t n, int64_t k) {
  TensorSpec weight;
  weight.module = module;
  weight.role = TensorRole::kMatrix;
  weight.shape = weight.stored.shape = {n, k};
  weight.stored.name = absl::StrCat(module, ".weight");
  return {spec_.AddTensor(std::move(weight)), -1, n};
}

int BlockBuilder::Apply(const Norm& norm, int in) {
  if (!norm.in_use) return in;
  const int out = AddSlot(width(in));
  Append(NormNode{in, out, norm.shape, norm.weight, norm.bias});
  return out;
}

int BlockBuilder::Apply(const Linear& linear, int in) {
  const int out = AddSlot(linear.num_outputs);
  Append(LinearNode{in, out, linear.weight, linear.bias});
  return out;
}

int BlockBuilder::Add(int a, int b, float factor) {
  const int out = AddSlot(width(a));
  Append(AddNode{a, b, out, factor});
  return out;
}

int BlockBuilder::Scale(int in, float factor) {
  if (factor == 1) return in;
  const int out = AddSlot(width(in));
  Append(ScaleNode{in, out, factor});
  return out;
}

int BlockBuilder::ScaleBy(int in, int tensor) {
  const int out = AddSlot(width(in));
  Append(ScaleByNode{in, out, tensor});
  return out;
}

int BlockBuilder::Clip(int in, float limit) {
  if (limit == 0) return in;
  const int out = AddSlot(width(in));
  Append(ClipNode{in, out, limit});
  return out;
}

int BlockBuilder::Gate(int in, int gate) {
  const int out = AddSlot(width(in));
  Append(SigmoidGateNode{in, gate, out});
  return out;
}

int BlockBuilder::Rope(int in, int table, const ops::RopeShape& shape) {
  if (table < 0) return in;
  const int out = AddSlot(width(in));
  Append(RopeNode{in, out, table, shape});
  return out;
}

int BlockBuilder::Slice(int in, int num_heads, int64_t head_size, int64_t offset, int64_t part) {
  const int out = AddSlot(num_heads * part);
  Append(SliceNode{in, out, num_heads, head_size, offset, part});
  return out;
}

int BlockBuilder::Join(int a, int b, int num_heads, bool b_shared) {
  const int64_t a_width = width(a) / num_heads;
  const int64_t b_width = b_shared ? width(b) : width(b) / num_heads;
  const int out = AddSlot(num_heads * (a_width + b_width));
  Append(JoinNode{a, b, out, num_heads, a_width, b_width, b_shared});
  return out;
}

}  // namespace uniquanf
