#include "worker/block/fold_sites.h"

#include <algorithm>
#include <map>
#include <utility>
#include <variant>

namespace uniquanf {
namespace {

// The slots that a node reads and the one that it writes.
struct Reads {
  std::vector<int> operator()(const LinearNode& n) const { return {n.in}; }
  std::vector<int> operator()(const NormNode& n) const { return {n.in}; }
  std::vector<int> operator()(const RopeNode& n) const { return {n.in}; }
  std::vector<int> operator()(const AttentionNode& n) const { return {n.q, n.k, n.v}; }
  std::vector<int> operator()(const ActivationNode& n) const { return {n.gate, n.up}; }
  std::vector<int> operator()(const XieluNode& n) const { return {n.in}; }
  std::vector<int> operator()(const AddNode& n) const { return {n.a, n.b}; }
  std::vector<int> operator()(const ScaleNode& n) const { return {n.in}; }
  std::vector<int> operator()(const ScaleByNode& n) const { return {n.in}; }
  std::vector<int> operator()(const SliceNode& n) const { return {n.in}; }
  std::vector<int> operator()(const JoinNode& n) const { return {n.a, n.b}; }
  std::vector<int> operator()(const ConvNode& n) const { return {n.in}; }
  std::vector<int> operator()(const RecurrenceNode& n) const { return {n.q, n.k, n.v, n.a, n.b}; }
  std::vector<int> operator()(const ClipNode& n) const { return {n.in}; }
  std::vector<int> operator()(const SigmoidGateNode& n) const { return {n.in, n.gate}; }
  std::vector<int> operator()(const ExpertsNode& n) const { return {n.in, n.router_in}; }
};

bool IsLinearInUp(ops::Activation kind) { return kind != ops::Activation::kClampedSwiGlu; }

class SiteFinder {
 public:
  explicit SiteFinder(const BlockSpec& spec)
      : spec_(spec), readers_(spec.slots.size()), writer_(spec.slots.size(), -1) {
    for (size_t i = 0; i < spec.nodes.size(); ++i) {
      for (const int slot : std::visit(Reads(), spec.nodes[i])) {
        if (slot >= 0) readers_[slot].push_back(static_cast<int>(i));
      }
      output_ = std::visit([](const auto& node) { return node.out; }, spec.nodes[i]);
      writer_[output_] = static_cast<int>(i);
    }
  }

  std::vector<FoldSite> Find() {
    std::vector<FoldSite> norms;
    for (const Node& node : spec_.nodes) {
      if (const auto* norm = std::get_if<NormNode>(&node)) {
        FoldSite site;
        if (OfNorm(*norm, &site)) norms.push_back(std::move(site));
      } else if (const auto* attention = std::get_if<AttentionNode>(&node)) {
        FoldSite site;
        const ops::AttentionShape& shape = attention->shape;
        site.head_dim = shape.value_dim != 0 ? shape.value_dim : shape.head_dim;
        site.share = shape.num_heads / shape.num_kv_heads;
        if (OfLinear(attention->v, attention->out, &site)) sites_.push_back(std::move(site));
      } else if (const auto* activation = std::get_if<ActivationNode>(&node)) {
        FoldSite site;
        if (activation->up >= 0 && IsLinearInUp(activation->kind) &&
            OfLinear(activation->up, activation->out, &site)) {
          sites_.push_back(std::move(site));
        }
      } else if (const auto* experts = std::get_if<ExpertsNode>(&node)) {
        for (const ExpertsNode::Expert& expert : experts->experts) {
          if (expert.up < 0 || !IsLinearInUp(experts->activation)) continue;
          FoldSite site;
          site.num_channels = spec_.tensors[expert.up].num_outputs();
          site.rows = expert.up;
          if (expert.up_bias >= 0) site.vectors.push_back(expert.up_bias);
          site.columns = {expert.down};
          sites_.push_back(std::move(site));
        }
      }
    }
    std::move(norms.begin(), norms.end(), std::back_inserter(sites_));
    return std::move(sites_);
  }

 private:
  bool OfNorm(const NormNode& norm, FoldSite* site) {
    site->num_channels = spec_.slots[norm.out];
    if (norm.weight < 0 || spec_.tensors[norm.weight].num_elements() != site->num_channels ||
        norm.shape.width != site->num_channels) {
      return false;
    }
    site->vectors = {norm.weight};
    if (norm.bias >= 0) site->vectors.push_back(norm.bias);
    return AddReaders(norm.out, site) && !site->columns.empty();
  }

  // The channels of `slot`, which a linear layer writes and one node alone reads, up to the
  // matrices that read `out`.
  bool OfLinear(int slot, int out, FoldSite* site) {
    for (;;) {
      if (readers_[slot].size() != 1 || writer_[slot] < 0) return false;
      const Node& node = spec_.nodes[writer_[slot]];
      if (const auto* linear = std::get_if<LinearNode>(&node)) {
        if (spec_.tensors[linear->weight].role != TensorRole::kLinear) return false;
        site->num_channels = spec_.slots[linear->out];
        site->rows = linear->weight;
        if (linear->bias >= 0) site->vectors.push_back(linear->bias);
        return AddReaders(out, site) && !site->columns.empty();
      }
      const auto* scale = std::get_if<ScaleNode>(&node);
      if (scale == nullptr) return false;
      slot = scale->in;
    }
  }

  // The matrices that multiply `slot`; false when something else reads it.
  bool AddReaders(int slot, FoldSite* site) {
    if (slot == output_) return false;
    int last = -1;
    for (const int reader : readers_[slot]) {
      if (reader == last) continue;  // it reads the slot twice
      last = reader;
      const Node& node = spec_.nodes[reader];
      if (const auto* linear = std::get_if<LinearNode>(&node)) {
        site->columns.push_back(linear->weight);
      } else if (const auto* scale = std::get_if<ScaleNode>(&node)) {
        if (!AddReaders(scale->out, site)) return false;
      } else if (const auto* gate = std::get_if<SigmoidGateNode>(&node)) {
        if (gate->gate == slot || !AddReaders(gate->out, site)) return false;
      } else if (const auto* experts = std::get_if<ExpertsNode>(&node)) {
        if (experts->router_in == slot) site->columns.push_back(experts->router_weight);
        if (experts->in != slot) continue;
        for (const ExpertsNode::Expert& expert : experts->experts) {
          site->columns.push_back(expert.gate);
          if (expert.up >= 0) site->columns.push_back(expert.up);
        }
      } else {
        return false;
      }
    }
    return true;
  }

  const BlockSpec& spec_;
  std::vector<std::vector<int>> readers_;  // by slot, nodes
  std::vector<int> writer_;                // by slot, node
  int output_ = -1;                        // slot
  std::vector<FoldSite> sites_;
};

}  // namespace

std::vector<FoldSite> FindFoldSites(const BlockSpec& spec) { return SiteFinder(spec).Find(); }

std::vector<int> SharedInputs(const BlockSpec& spec) {
  std::map<int, int> linear_of;  // tensor to linear
  for (int l = 0; l < spec.num_linears(); ++l) linear_of[spec.linears[l]] = l;
  std::vector<int> first(spec.num_linears());
  for (int l = 0; l < spec.num_linears(); ++l) first[l] = l;
  std::map<int, int> slot_of, first_of_slot;  // by linear; the first linear of a slot
  for (const Node& node : spec.nodes) {
    if (const auto* linear = std::get_if<LinearNode>(&node)) {
      const auto it = linear_of.find(linear->weight);
      if (it == linear_of.end()) continue;
      slot_of[it->second] = linear->in;
    } else if (const auto* experts = std::get_if<ExpertsNode>(&node)) {
      for (const ExpertsNode::Expert& expert : experts->experts) {
        const auto gate = linear_of.find(expert.gate), up = linear_of.find(expert.up);
        if (gate != linear_of.end() && up != linear_of.end()) first[up->second] = gate->second;
      }
    }
  }
  for (const auto& [l, slot] : slot_of) first[l] = first_of_slot.emplace(slot, l).first->second;
  return first;
}

}  // namespace uniquanf
