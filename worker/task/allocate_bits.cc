#include "worker/task/allocate_bits.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/random.h"
#include "common/base/status.h"
#include "worker/model/language_model.h"
#include "worker/quant/method.h"
#include "worker/quant/start.h"
#include "worker/quant/uniform_grids.h"
#include "worker/task/artifact_size.h"
#include "worker/task/task_context.h"

namespace uniquanf {
namespace {

constexpr int64_t kMaxSequences = 4;
constexpr uint64_t kProbeStream = 0x70726F6265 /* "probe" */;
constexpr int kFewestBits = 2;
constexpr int kScaleBits = 16;  // of a stored scale or shift

int64_t StoredBits(int64_t num_outputs, int64_t num_inputs, int64_t group_size, int bits) {
  const int64_t groups = num_inputs / group_size;
  return num_outputs * (num_inputs * bits + groups * kScaleBits * (bits + 1));
}

class Allocation {
 public:
  Allocation(const Plan& plan, const Checkpoint& checkpoint, const TaskEnvironment& env)
      : plan_(plan),
        checkpoint_(checkpoint),
        config_(checkpoint.config()),
        env_(env),
        num_sequences_(std::min(plan.num_samples, kMaxSequences)) {}

  absl::StatusOr<std::map<std::string, int>> Run(const std::vector<int32_t>& ids) {
    UQ_ASSIGN_OR_RETURN(rope_, MakeRopeTables(env_.backend, config_.ropes, plan_.sequence_length));
    UQ_RETURN_IF_ERROR(RunForward(ids));
    UQ_RETURN_IF_ERROR(RunBackward());
    ListSets();
    mean_bits_ = plan_.spec.average_bits;
    if (plan_.spec.artifact_size > 0) {
      UQ_RETURN_IF_ERROR(FindMeanBits());
    }
    for (Members& members : members_) {
      UQ_RETURN_IF_ERROR(MeasureLayer(&members));
    }
    if (plan_.spec.artifact_size > 0) return DistributeBytes();
    const auto budget =
        static_cast<int64_t>(std::floor(plan_.spec.average_bits * num_weights_)) - fixed_bits_;
    UQ_ASSIGN_OR_RETURN(const std::vector<int> bits, DistributeBits(sets_, budget));
    return Named(bits);
  }

 private:
  // The sets of one layer: where they begin in sets_, and the linears of each.
  struct Members {
    int layer;
    size_t first;
    std::vector<std::vector<int>> linears;
  };

  std::map<std::string, int> Named(const std::vector<int>& bits) const {
    std::map<std::string, int> allocation;
    for (size_t i = 0; i < sets_.size(); ++i) {
      for (const std::string& module : sets_[i].modules) allocation[module] = bits[i];
    }
    return allocation;
  }

  // Of the whole artifact.
  absl::StatusOr<int64_t> SizeWith(const std::vector<int>& bits) const {
    Plan plan = plan_;
    plan.allocation = Named(bits);
    return ArtifactSize(plan, checkpoint_);
  }

  // The most bits that all sets may have at once.
  absl::Status FindMeanBits() {
    for (int bits = kFewestBits; bits <= kMostBits; ++bits) {
      UQ_ASSIGN_OR_RETURN(const int64_t size, SizeWith(std::vector<int>(sets_.size(), bits)));
      if (bits == kFewestBits && size > plan_.spec.artifact_size) {
        return InvalidInput("BUDGET_TOO_SMALL",
                            absl::StrCat("artifact_size is ", plan_.spec.artifact_size,
                                         " bytes; with all modules at ", kFewestBits,
                                         " bits the artifact has ", size));
      }
      if (size <= plan_.spec.artifact_size) mean_bits_ = bits;
    }
    return absl::OkStatus();
  }

  // Headers and lists grow with the numbers in them, so the size of what is spread is corrected by
  // what the whole comes to; then sets get what is left.
  absl::StatusOr<std::map<std::string, int>> DistributeBytes() const {
    const int64_t target = plan_.spec.artifact_size;
    std::vector<int> bits(sets_.size(), kFewestBits);
    UQ_ASSIGN_OR_RETURN(int64_t size, SizeWith(bits));
    int64_t budget = (target - size) * 8;
    for (const BitsSet& set : sets_) budget += set.size[kFewestBits];
    const int64_t least = budget - (target - size) * 8;
    for (;;) {
      UQ_ASSIGN_OR_RETURN(bits, DistributeBits(sets_, std::max(budget, least)));
      UQ_ASSIGN_OR_RETURN(size, SizeWith(bits));
      if (size <= target || budget <= least) break;
      budget -= (size - target) * 8;
    }
    for (bool grew = true; grew;) {
      grew = false;
      for (size_t i = 0; i < sets_.size() && !grew; ++i) {
        if (bits[i] == kMostBits) continue;
        ++bits[i];
        UQ_ASSIGN_OR_RETURN(size, SizeWith(bits));
        grew = size <= target;
        if (!grew) --bits[i];
      }
    }
    return Named(bits);
  }

  absl::StatusOr<BlockWeights> Upload(int layer) const {
    UQ_ASSIGN_OR_RETURN(const HostBlock block, checkpoint_.LoadBlock(layer));
    return UploadBlock(env_.backend, config_.blocks[layer], env_.act, block);
  }
  absl::StatusOr<SequenceBuffer> NewBuffer() const {
    return SequenceBuffer::Allocate(env_.backend, SequenceBuffer::Placement::kHost, env_.act,
                                    num_sequences_, plan_.sequence_length, config_.hidden_size);
  }
  absl::StatusOr<Tensor> NewSequence() const {
    return Tensor::Allocate(env_.backend, env_.act, {plan_.sequence_length, config_.hidden_size});
  }

  // Every block's input, and the last one's output.
  absl::Status RunForward(const std::vector<int32_t>& ids) {
    const std::vector<int32_t> used(ids.begin(),
                                    ids.begin() + num_sequences_ * plan_.sequence_length);
    UQ_ASSIGN_OR_RETURN(
        states_.emplace_back(),
        EmbedSequences(env_.backend, checkpoint_, env_.act, SequenceBuffer::Placement::kHost, used,
                       num_sequences_, plan_.sequence_length));
    for (int layer = 0; layer < config_.num_layers; ++layer) {
      ReportProgress(env_, "activations", layer, config_.num_layers);
      UQ_ASSIGN_OR_RETURN(const BlockWeights weights, Upload(layer));
      UQ_ASSIGN_OR_RETURN(SequenceBuffer out, NewBuffer());
      UQ_RETURN_IF_ERROR(ForwardBlock(env_.backend, config_.blocks[layer], rope_, weights,
                                      states_[layer], &out, env_.stop));
      states_.push_back(std::move(out));
    }
    return absl::OkStatus();
  }

  // Probes of the last hidden states: signs over the state's length, so that Σ (probe · δ)² is, on
  // average, the square of its relative change.
  absl::StatusOr<SequenceBuffer> NewProbes() {
    UQ_ASSIGN_OR_RETURN(SequenceBuffer probes, NewBuffer());
    UQ_ASSIGN_OR_RETURN(Tensor row, NewSequence());
    const int64_t width = config_.hidden_size;
    uint64_t draw = 0;
    for (int64_t s = 0; s < num_sequences_; ++s) {
      UQ_RETURN_IF_ERROR(states_.back().Load(s, 0, &row));
      UQ_ASSIGN_OR_RETURN(std::vector<float> values, row.ToFloats());
      for (size_t t = 0; t < values.size(); t += width) {
        double square = 0;
        for (int64_t j = 0; j < width; ++j)
          square += static_cast<double>(values[t + j]) * values[t + j];
        const auto size = static_cast<float>(1 / std::sqrt(std::max(square, 1e-30)));
        for (int64_t j = 0; j < width; ++j) {
          if (j % 32 == 0) draw_ = PhiloxAt(plan_.spec.seed, kProbeStream, draw++).v[0];
          values[t + j] = ((draw_ >> (j % 32)) & 1u) != 0 ? size : -size;
        }
      }
      UQ_RETURN_IF_ERROR(row.CopyFromFloats(values.data()));
      UQ_RETURN_IF_ERROR(probes.Store(s, row));
    }
    return probes;
  }

  // sensitivity_[layer][j]: the sum of the squares of what comes back to channel j of its output.
  absl::Status RunBackward() {
    UQ_ASSIGN_OR_RETURN(SequenceBuffer probes, NewProbes());
    sensitivity_.resize(config_.num_layers);
    UQ_ASSIGN_OR_RETURN(Tensor x, NewSequence());
    UQ_ASSIGN_OR_RETURN(Tensor y, NewSequence());
    UQ_ASSIGN_OR_RETURN(Tensor dy, NewSequence());
    UQ_ASSIGN_OR_RETURN(Tensor dx, NewSequence());
    for (int layer = config_.num_layers - 1; layer >= 0; --layer) {
      ReportProgress(env_, "activations", layer, config_.num_layers);
      const BlockSpec& block = config_.blocks[layer];
      UQ_ASSIGN_OR_RETURN(const BlockWeights weights, Upload(layer));
      UQ_ASSIGN_OR_RETURN(
          const std::unique_ptr<BlockRunner> runner,
          BlockRunner::Create(env_.backend, block, env_.act, /*batch=*/1, plan_.sequence_length,
                              &rope_, /*with_backward=*/true));
      UQ_ASSIGN_OR_RETURN(Tensor sums,
                          Tensor::Allocate(env_.backend, DType::kFloat32, {config_.hidden_size}));
      UQ_RETURN_IF_ERROR(env_.backend->FillZero(sums.data(), sums.size_bytes()));
      BlockGradients none(block.num_linears());
      for (int64_t s = 0; s < num_sequences_; ++s) {
        if (IsCancelled(env_)) return CancelledError();
        UQ_RETURN_IF_ERROR(states_[layer].Load(s, 0, &x));
        UQ_RETURN_IF_ERROR(probes.Load(s, 0, &dy));
        quant::AddSquares(env_.backend, dy, &sums);
        runner->Forward(weights, x, &y);
        runner->Backward(weights, dy, /*accumulate=*/false, &none, &dx, nullptr);
        UQ_RETURN_IF_ERROR(probes.Store(s, dx));
      }
      UQ_ASSIGN_OR_RETURN(sensitivity_[layer], sums.ToFloats());
    }
    return absl::OkStatus();
  }

  void ListSets() {
    for (int layer = 0; layer < config_.num_layers; ++layer) {
      const BlockSpec& block = config_.blocks[layer];
      const std::vector<int> set_of = FusedSets(block);
      std::map<int, std::vector<int>> members;
      for (int l = 0; l < block.num_linears(); ++l) {
        const std::string name = config_.ModuleName(layer, l);
        const ModuleSettings settings = SettingsForModule(plan_.spec, name);
        if (settings.full_precision) continue;
        const auto [n, k] = block.LinearShape(l);
        num_weights_ += static_cast<double>(n) * static_cast<double>(k);
        if (OverridesBits(name)) {
          fixed_bits_ += StoredBits(n, k, GroupSize(settings, k), settings.bits);
        } else {
          members[set_of[l]].push_back(l);
        }
      }
      members_.push_back({layer, sets_.size(), {}});
      for (auto& [first, linears] : members) {
        sets_.push_back(NewSet(layer, linears));
        members_.back().linears.push_back(std::move(linears));
      }
    }
  }

  BitsSet NewSet(int layer, const std::vector<int>& linears) const {
    BitsSet set;
    for (const int l : linears) {
      const std::string name = config_.ModuleName(layer, l);
      const auto [n, k] = config_.blocks[layer].LinearShape(l);
      const int64_t group_size = GroupSize(SettingsForModule(plan_.spec, name), k);
      set.modules.push_back(name);
      set.num_weights += n * k;
      for (int bits = kFewestBits; bits <= kMostBits; ++bits) {
        // In files planes are filled up to whole words.
        const int64_t width = plan_.spec.artifact_size > 0 ? (k + 31) / 32 * 32 : k;
        set.size[bits] += StoredBits(n, k, group_size, bits) + n * (width - k) * bits;
      }
    }
    return set;
  }

  absl::Status MeasureLayer(Members* members) {
    ReportProgress(env_, "initializing", members->layer, config_.num_layers);
    UQ_ASSIGN_OR_RETURN(BlockWeights weights, Upload(members->layer));
    for (size_t i = 0; i < members->linears.size(); ++i) {
      UQ_RETURN_IF_ERROR(
          MeasureSet(members->layer, members->linears[i], &weights, &sets_[members->first + i]));
    }
    return absl::OkStatus();
  }

  // Around the budget; beyond, a bit is worth what it is where levels are dense.
  absl::Status MeasureSet(int layer, const std::vector<int>& linears, BlockWeights* weights,
                          BitsSet* set) {
    const int most = std::clamp(static_cast<int>(std::ceil(mean_bits_)) + 1, 4, kMostBits);
    const int fewest = std::max(kFewestBits, most - 4);
    for (int bits = fewest; bits <= most; ++bits) {
      if (IsCancelled(env_)) return CancelledError();
      UQ_ASSIGN_OR_RETURN(set->cost[bits], MeasureCost(layer, linears, bits, weights));
      // A bit more never costs more.
      if (bits > fewest) set->cost[bits] = std::min(set->cost[bits], set->cost[bits - 1]);
    }
    for (int bits = most + 1; bits <= kMostBits; ++bits) set->cost[bits] = set->cost[bits - 1] / 4;
    for (int bits = fewest - 1; bits >= kFewestBits; --bits) {
      set->cost[bits] = set->cost[bits + 1] * 4;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<double> MeasureCost(int layer, const std::vector<int>& linears, int bits,
                                     BlockWeights* weights) {
    const BlockSpec& block = config_.blocks[layer];
    std::vector<std::pair<int, Tensor>> originals;
    for (const int l : linears) {
      Tensor& weight = (*weights)[block.linears[l]];
      UQ_ASSIGN_OR_RETURN(Tensor quantized,
                          QuantizedAlone(config_.ModuleName(layer, l), weight, bits));
      originals.emplace_back(block.linears[l], std::move(weight));
      weight = std::move(quantized);
    }
    const absl::StatusOr<double> cost = OutputCost(layer, *weights);
    for (auto& [tensor, original] : originals) (*weights)[tensor] = std::move(original);
    return cost;
  }

  absl::StatusOr<Tensor> QuantizedAlone(const std::string& name, const Tensor& weight, int bits) {
    const QuantizationSpec& spec = plan_.spec;
    const quant::Method& method = quant::MethodOf(spec.method);
    UQ_ASSIGN_OR_RETURN(Tensor copy,
                        Tensor::Allocate(env_.backend, weight.dtype(), weight.shape()));
    UQ_RETURN_IF_ERROR(env_.backend->CopyOnDevice(copy.data(), weight.data(), weight.size_bytes()));
    UQ_ASSIGN_OR_RETURN(
        quant::QuantizerState state,
        quant::NewQuantizerState(env_.backend, std::move(copy), bits,
                                 GroupSize(SettingsForModule(spec, name), weight.dim(1)),
                                 method.trained));
    if (method.initialize == nullptr || spec.levels != Levels::kAny) {
      UQ_RETURN_IF_ERROR(quant::StartOnGrids(spec.levels, /*search=*/true, {}, &state));
    } else {
      quant::InitOptions options;
      options.grid_steps = spec.grid_steps;
      options.alternating_rounds = spec.alternating_rounds;
      method.initialize(env_.backend, options, &state);
    }
    UQ_ASSIGN_OR_RETURN(Tensor w_hat,
                        Tensor::Allocate(env_.backend, weight.dtype(), weight.shape()));
    quant::Forward(env_.backend, quant::Mapping::kKeep, &state, &w_hat);
    UQ_RETURN_IF_ERROR(env_.backend->Synchronize());
    return w_hat;
  }

  // Σ_j sensitivity_j Σ_t δ_tj², δ how the block's output differs from the original's.
  absl::StatusOr<double> OutputCost(int layer, const BlockWeights& weights) {
    UQ_ASSIGN_OR_RETURN(SequenceBuffer out, NewBuffer());
    UQ_RETURN_IF_ERROR(ForwardBlock(env_.backend, config_.blocks[layer], rope_, weights,
                                    states_[layer], &out, env_.stop));
    UQ_ASSIGN_OR_RETURN(Tensor row, NewSequence());
    const int64_t width = config_.hidden_size;
    std::vector<double> sums(width);
    for (int64_t s = 0; s < num_sequences_; ++s) {
      UQ_RETURN_IF_ERROR(out.Load(s, 0, &row));
      UQ_ASSIGN_OR_RETURN(const std::vector<float> now, row.ToFloats());
      UQ_RETURN_IF_ERROR(states_[layer + 1].Load(s, 0, &row));
      UQ_ASSIGN_OR_RETURN(const std::vector<float> original, row.ToFloats());
      for (size_t i = 0; i < now.size(); ++i) {
        const double error = static_cast<double>(now[i]) - original[i];
        sums[i % width] += error * error;
      }
    }
    double cost = 0;
    for (int64_t j = 0; j < width; ++j) cost += sensitivity_[layer][j] * sums[j];
    if (std::isfinite(cost)) return cost;
    return MakeError(absl::StatusCode::kInternal, "LOSS_NOT_FINITE",
                     absl::StrCat("what layer ", layer,
                                  " loses by quantization is not a finite number; check the "
                                  "calibration data"));
  }

  static int64_t GroupSize(const ModuleSettings& settings, int64_t num_inputs) {
    return settings.group_size == 0 ? num_inputs : settings.group_size;
  }
  // Whether the override that holds for the module says how many bits it gets.
  bool OverridesBits(const std::string& name) const {
    QuantizationSpec other = plan_.spec;
    other.bits = other.bits == kMostBits ? kFewestBits : kMostBits;
    return SettingsForModule(other, name).bits != other.bits ||
           SettingsForModule(plan_.spec, name).bits != plan_.spec.bits;
  }

  const Plan& plan_;
  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const TaskEnvironment& env_;
  const int64_t num_sequences_;
  RopeTables rope_;
  std::vector<SequenceBuffer> states_;
  std::vector<std::vector<float>> sensitivity_;
  std::vector<BitsSet> sets_;
  std::vector<Members> members_;  // by layer
  double num_weights_ = 0;        // of all quantized modules
  int64_t fixed_bits_ = 0;        // of those that an override decides
  double mean_bits_ = 0;          // about what the budget is for each
  uint32_t draw_ = 0;
};

}  // namespace

absl::StatusOr<std::map<std::string, int>> AllocateBits(const Plan& plan,
                                                        const Checkpoint& checkpoint,
                                                        const std::vector<int32_t>& ids,
                                                        const TaskEnvironment& env) {
  return Allocation(plan, checkpoint, env).Run(ids);
}

}  // namespace uniquanf
