#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <variant>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/block/fold_sites.h"
#include "worker/task/allocate_bits.h"

namespace uniquanf {
namespace {

constexpr int kFewestBits = 2;

class Distribution {
 public:
  Distribution(const std::vector<BitsSet>& sets, int64_t budget)
      : sets_(sets), budget_(budget), bits_(sets.size(), kFewestBits) {}

  absl::StatusOr<std::vector<int>> Run() {
    for (const BitsSet& set : sets_) used_ += set.size[kFewestBits];
    if (used_ > budget_) {
      return InvalidInput("BUDGET_TOO_SMALL",
                          absl::StrCat("the budget is ", budget_, " bits; all modules at ",
                                       kFewestBits, " bits, scales included, take ", used_));
    }
    // From the closed form, and from equal bits: few sets of very different sizes can be stuck.
    StartFromClosedForm();
    Improve();
    const std::vector<int> from_closed_form = bits_;
    const double cost = Cost();
    for (size_t i = 0; i < sets_.size(); ++i) Set(i, mean_bits_);
    Improve();
    if (cost <= Cost()) return from_closed_form;
    return bits_;
  }

 private:
  void Set(size_t i, int bits) {
    used_ += sets_[i].size[bits] - sets_[i].size[bits_[i]];
    bits_[i] = bits;
  }
  void Improve() {
    while (used_ > budget_) Lower();
    Fill();
    while (Exchange()) Fill();
  }
  double Cost() const {
    double sum = 0;
    for (size_t i = 0; i < sets_.size(); ++i) sum += sets_[i].cost[bits_[i]];
    return sum;
  }
  int64_t Growth(size_t i) const { return sets_[i].size[bits_[i] + 1] - sets_[i].size[bits_[i]]; }
  double Gain(size_t i) const { return sets_[i].cost[bits_[i]] - sets_[i].cost[bits_[i] + 1]; }
  int64_t Shrinkage(size_t i) const {
    return sets_[i].size[bits_[i]] - sets_[i].size[bits_[i] - 1];
  }
  double Loss(size_t i) const { return sets_[i].cost[bits_[i] - 1] - sets_[i].cost[bits_[i]]; }

  // The largest bits that fit everywhere are b̄; s_i is what the set costs there.
  void StartFromClosedForm() {
    mean_bits_ = kFewestBits;
    for (int bits = kFewestBits; bits <= kMostBits; ++bits) {
      int64_t size = 0;
      for (const BitsSet& set : sets_) size += set.size[bits];
      if (size <= budget_) mean_bits_ = bits;
    }
    std::vector<double> wanted(sets_.size());
    double mean = 0, weights = 0;
    for (size_t i = 0; i < sets_.size(); ++i) {
      const auto n = static_cast<double>(sets_[i].num_weights);
      const double cost = std::max(sets_[i].cost[mean_bits_], 1e-300);
      wanted[i] = 0.5 * std::log2(cost / n);
      mean += n * wanted[i];
      weights += n;
    }
    for (size_t i = 0; i < sets_.size(); ++i) {
      const double bits = mean_bits_ + wanted[i] - mean / weights;
      Set(i, static_cast<int>(
                 std::clamp(std::nearbyint(bits), double{kFewestBits}, double{kMostBits})));
    }
  }

  // Takes a bit where that loses least for what it saves.
  void Lower() {
    size_t best = sets_.size();
    double least = std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < sets_.size(); ++i) {
      if (bits_[i] == kFewestBits) continue;
      const double rate = Loss(i) / static_cast<double>(Shrinkage(i));
      if (best == sets_.size() || rate < least) best = i, least = rate;
    }
    Set(best, bits_[best] - 1);
  }

  // Gives bits, where they gain most for what they take, until none fits.
  void Fill() {
    for (;;) {
      size_t best = sets_.size();
      double most = 0;
      for (size_t i = 0; i < sets_.size(); ++i) {
        if (bits_[i] == kMostBits || used_ + Growth(i) > budget_) continue;
        const double rate = Gain(i) / static_cast<double>(Growth(i));
        if (best == sets_.size() || rate > most) best = i, most = rate;
      }
      if (best == sets_.size()) return;
      Set(best, bits_[best] + 1);
    }
  }

  // A bit from one set to another, the pair that gains most; false when none gains. The sum of
  // costs falls with every exchange and every fill, or stays with more bits used, so it ends.
  bool Exchange() {
    size_t to = sets_.size(), from = sets_.size();
    double most = 0, sum = 0;
    for (size_t i = 0; i < sets_.size(); ++i) sum += std::fabs(sets_[i].cost[bits_[i]]);
    for (size_t i = 0; i < sets_.size(); ++i) {
      if (bits_[i] == kMostBits) continue;
      for (size_t j = 0; j < sets_.size(); ++j) {
        if (j == i || bits_[j] == kFewestBits) continue;
        if (used_ + Growth(i) - Shrinkage(j) > budget_) continue;
        const double gain = Gain(i) - Loss(j);
        if (gain > most) most = gain, to = i, from = j;
      }
    }
    if (!(most > 1e-9 * sum)) return false;
    Set(to, bits_[to] + 1);
    Set(from, bits_[from] - 1);
    return true;
  }

  const std::vector<BitsSet>& sets_;
  const int64_t budget_;
  std::vector<int> bits_;
  int64_t used_ = 0;
  int mean_bits_ = kFewestBits;
};

}  // namespace

std::vector<int> FusedSets(const BlockSpec& block) {
  std::vector<int> set = SharedInputs(block);
  std::map<int, int> linear_of;
  for (int l = 0; l < block.num_linears(); ++l) linear_of[block.linears[l]] = l;
  for (const Node& node : block.nodes) {
    const auto* experts = std::get_if<ExpertsNode>(&node);
    if (experts == nullptr) continue;
    int in = -1, out = -1;
    const auto join = [&](int tensor, int* first) {
      const auto it = linear_of.find(tensor);
      if (it == linear_of.end()) return;
      if (*first < 0) *first = it->second;
      set[it->second] = *first;
    };
    for (const ExpertsNode::Expert& expert : experts->experts) {
      join(expert.gate, &in);
      join(expert.up, &in);
      join(expert.down, &out);
    }
  }
  return set;
}

absl::StatusOr<std::vector<int>> DistributeBits(const std::vector<BitsSet>& sets, int64_t budget) {
  return Distribution(sets, budget).Run();
}

}  // namespace uniquanf
