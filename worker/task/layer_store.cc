#include "worker/task/layer_store.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/parallel.h"
#include "common/base/status.h"
#include "worker/quant/quantizer.h"
#include "worker/task/content_store.h"
#include "worker/task/layer_shard.h"
#include "worker/task/model_changes.h"

namespace uniquanf {
namespace {

using quant::QuantizerState;

// Mean squared difference between the stored weights and the original ones, `weight` [N, K]. The
// order of summation is fixed: within a row, then over rows.
double StoredError(const PackedLinear& packed, const std::vector<float>& weight) {
  const int64_t width = packed.num_inputs;
  std::vector<double> sums(packed.num_outputs);
  ParallelRanges(packed.num_outputs, 64, [&](int64_t begin, int64_t end) {
    std::vector<float> stored((end - begin) * width);
    DequantizeRows(packed, begin, end, stored.data());
    for (int64_t row = begin; row < end; ++row) {
      const float* original = weight.data() + row * width;
      const float* now = stored.data() + (row - begin) * width;
      for (int64_t k = 0; k < width; ++k) {
        const double error = static_cast<double>(original[k]) - now[k];
        sums[row] += error * error;
      }
    }
  });
  double sum = 0;
  for (double row : sums) sum += row;
  return sum / static_cast<double>(weight.size());
}

// Groups that fp16 cannot say: a scale or the shift loses more than 2^-9 of the group's largest
// weight by being stored, because it is too small (what is too large is counted when it is packed).
int64_t CountUnderflowed(const UnifiedLinear& unified, const std::vector<float>& weight) {
  constexpr float kLargestLoss = 0x1p-9f, kLargestFloat16 = 65504;
  const int64_t g = unified.group_size;
  int64_t count = 0;
  for (size_t group = 0; group < unified.shift.size(); ++group) {
    float largest = 0;
    for (int64_t i = 0; i < g; ++i) {
      largest = std::max(largest, std::fabs(weight[static_cast<int64_t>(group) * g + i]));
    }
    const auto loses = [&](float value) {
      return std::fabs(value) <= kLargestFloat16 &&
             std::fabs(StoredScale(value) - value) > kLargestLoss * largest;
    };
    bool lost = loses(unified.shift[group]);
    for (int i = 0; i < unified.bits; ++i) {
      lost = lost || loses(unified.alpha[group * unified.bits + i]);
    }
    if (largest > 0 && lost) ++count;
  }
  return count;
}

}  // namespace

absl::Status WriteStored(Backend* backend, const UnifiedLinear& unified,
                         const quant::StoredCodes& codes, Tensor* weight) {
  const auto upload = [backend](const std::vector<float>& values,
                                const Shape& shape) -> absl::StatusOr<Tensor> {
    std::vector<float> stored(values.size());
    std::transform(values.begin(), values.end(), stored.begin(), StoredScale);
    return Tensor::FromFloats(backend, DType::kFloat32, shape, stored.data());
  };
  const Shape groups = {codes.num_outputs(), codes.groups_per_row()};
  UQ_ASSIGN_OR_RETURN(const Tensor alpha,
                      upload(unified.alpha, {groups[0], groups[1], codes.bits}));
  UQ_ASSIGN_OR_RETURN(const Tensor beta, upload(unified.shift, groups));
  quant::WriteStored(backend, codes, alpha, beta, weight);
  return backend->Synchronize();
}

StoringShard::StoringShard(std::shared_ptr<const LayerTask> task,
                           std::shared_ptr<const HostBlock> original)
    : task_(std::move(task)),
      original_(std::move(original)),
      packed_(task_->block().num_linears()),
      packing_(task_->block().num_linears()) {
  for (int l = 0; l < task_->block().num_linears(); ++l) {
    ModuleResult module;
    module.name = task_->modules[l];
    std::tie(module.num_outputs, module.num_inputs) = task_->block().LinearShape(l);
    stored_.modules.push_back(std::move(module));
  }
  weights_sha256_ =
      std::async(std::launch::async, [this] { return WeightsDigest(task_->block(), *original_); });
}

void StoringShard::Pack(int l, UnifiedLinear unified) {
  packing_[l] = std::async(std::launch::async, [this, l, unified = std::move(unified)] {
    packed_[l] = uniquanf::Pack(unified);
    ModuleResult& module = stored_.modules[l];
    module.quantized = true;
    module.bits = unified.bits;
    module.group_size = unified.group_size;
    module.num_saturated = packed_[l].num_saturated;
    const int tensor = task_->block().linears[l];
    const auto scaled = scaled_.find(tensor);
    const std::vector<float>& weight =
        scaled == scaled_.end() ? (*original_)[tensor] : scaled->second;
    module.weight_error = StoredError(packed_[l], weight);
    module.num_underflowed = CountUnderflowed(unified, weight);
  });
}

void StoringShard::Write() {
  writing_ = std::async(std::launch::async, [this] { return StoreShard(); });
}

absl::Status StoringShard::StoreShard() {
  std::map<std::string, PackedLinear> packed;
  for (size_t l = 0; l < packing_.size(); ++l) {
    if (!packing_[l].valid()) continue;
    packing_[l].get();
    packed.emplace(task_->modules[l], std::move(packed_[l]));
  }
  UQ_ASSIGN_OR_RETURN(const std::string bytes, BuildLayerShard(*task_->context.checkpoint,
                                                               task_->at.layer, packed, changed_));
  stored_.size_bytes = bytes.size();
  UQ_ASSIGN_OR_RETURN(stored_.sha256, PutContent(task_->env.work.get(), bytes));
  UQ_CRASH_POINT("layer.shard_stored");
  return absl::OkStatus();
}

absl::StatusOr<StoredShard> StoringShard::Wait() {
  UQ_RETURN_IF_ERROR(writing_.get());
  stored_.weights_sha256 = weights_sha256_.get();
  return std::move(stored_);
}

absl::Status StartStoring(const LayerTask& task, Optimized* optimized, StoringShard* storing) {
  const BlockSpec& block = task.block();
  storing->SetScaled(std::move(optimized->scaled));
  storing->SetChanged(std::move(optimized->changed_bytes));
  for (int l = 0; l < block.num_linears(); ++l) {
    std::optional<QuantizerState>& state = optimized->states[l];
    if (!state) continue;
    UQ_ASSIGN_OR_RETURN(UnifiedLinear unified, quant::Unify(task.env.backend, *state));
    if (task.reconstructs) {  // else nobody asks what the block computes
      UQ_RETURN_IF_ERROR(WriteStored(task.env.backend, unified, quant::CodesOf(*state),
                                     &optimized->weights[block.linears[l]]));
    }
    state.reset();
    storing->Pack(l, std::move(unified));
  }
  storing->Write();
  return absl::OkStatus();
}

}  // namespace uniquanf
