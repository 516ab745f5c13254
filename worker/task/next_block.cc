#include "worker/task/next_block.h"

#include <chrono>
#include <cstring>
#include <utility>

#include "common/base/parallel.h"
#include "common/safetensors/float_conversion.h"

namespace uniquanf {
namespace {

constexpr int64_t kGrain = 1 << 18;  // elements a thread converts at a time

void ConvertTo(DType act, const std::vector<float>& values, char* out) {
  ParallelRanges(static_cast<int64_t>(values.size()), kGrain, [&](int64_t begin, int64_t end) {
    if (act == DType::kFloat32) {
      std::memcpy(out + begin * sizeof(float), values.data() + begin,
                  (end - begin) * sizeof(float));
      return;
    }
    auto* to = reinterpret_cast<uint16_t*>(out);
    for (int64_t i = begin; i < end; ++i) to[i] = FloatToBfloat16(values[i]);
  });
}

}  // namespace

uint64_t NextBlock::DeviceBytes(const BlockSpec& spec, DType act) {
  uint64_t elements = 0;
  for (int l = 0; l < spec.num_linears(); ++l) elements += spec.linear(l).num_elements();
  return elements * DTypeBytes(act);
}

bool NextBlock::ReservePinned(size_t size_bytes) {
  if (size_bytes <= pinned_bytes_) return true;
  if (pinned_ != nullptr) backend_->FreeHost(pinned_);
  pinned_ = nullptr;
  pinned_bytes_ = 0;
  absl::StatusOr<void*> memory = backend_->AllocateHost(size_bytes);
  if (!memory.ok()) return false;
  pinned_ = static_cast<char*>(*memory);
  pinned_bytes_ = size_bytes;
  return true;
}

void NextBlock::Start(const std::string& plan_sha256, int layer, Load load, Backend* backend,
                      const BlockSpec& spec, DType act, bool copy) {
  if (reading_.valid()) reading_.wait();
  linear_.clear();
  plan_sha256_ = plan_sha256;
  layer_ = layer;
  backend_ = backend;
  spec_ = spec;
  act_ = act;
  copy_ = copy;
  reading_ = std::async(std::launch::async, [this, load = std::move(load), copy] {
    // Locking as much memory takes as long as reading the block.
    std::future<bool> reserved;
    if (copy) {
      reserved = std::async(std::launch::async,
                            [this] { return ReservePinned(DeviceBytes(spec_, act_)); });
    }
    absl::StatusOr<HostBlock> block = load();
    // Without page-locked memory the block is still read ahead.
    if (!copy || !reserved.get() || !block.ok()) return block;
    char* to = pinned_;
    for (int t : spec_.linears) {
      const std::vector<float>& weight = (*block)[t];
      ConvertTo(act_, weight, to);
      to += weight.size() * DTypeBytes(act_);
    }
    return block;
  });
}

bool NextBlock::IsReading() const {
  return reading_.valid() &&
         reading_.wait_for(std::chrono::seconds(0)) != std::future_status::ready;
}

void NextBlock::Poll() {
  if (!copy_ || !reading_.valid() || IsReading()) return;
  copy_ = false;
  if (pinned_bytes_ < DeviceBytes(spec_, act_)) return;  // it could not be reserved
  const char* from = pinned_;
  std::vector<Tensor> linear(spec_.num_linears());
  for (int l = 0; l < spec_.num_linears(); ++l) {
    absl::StatusOr<Tensor> tensor = Tensor::Allocate(backend_, act_, spec_.linear(l).shape);
    if (!tensor.ok()) return;  // no room after all: the next task copies them itself
    Tensor& to = linear[l] = *std::move(tensor);
    if (!backend_->CopyFromHostAside(to.data(), from, to.size_bytes()).ok()) return;
    from += to.size_bytes();
  }
  linear_ = std::move(linear);
}

std::optional<absl::StatusOr<NextBlock::Ready>> NextBlock::Take(const std::string& plan_sha256,
                                                                int layer) {
  if (!Is(plan_sha256, layer)) {
    Drop();
    return std::nullopt;
  }
  reading_.wait();
  Poll();
  absl::StatusOr<HostBlock> block = reading_.get();
  copy_ = false;
  if (!block.ok()) {
    linear_.clear();
    return block.status();
  }
  Ready ready;
  ready.host = *std::move(block);
  if (device_bytes() > 0) {
    // Waited for, since the page-locked memory is about to be filled anew.
    absl::Status status = backend_->JoinCopies();
    if (status.ok()) status = backend_->Synchronize();
    if (!status.ok()) return status;
    ready.linear = std::exchange(linear_, {});
  }
  return ready;
}

void NextBlock::Drop() {
  if (reading_.valid()) reading_.get().IgnoreError();
  copy_ = false;
  linear_.clear();
  if (pinned_ != nullptr) backend_->FreeHost(pinned_);
  pinned_ = nullptr;
  pinned_bytes_ = 0;
}

uint64_t NextBlock::device_bytes() const {
  uint64_t bytes = 0;
  for (const Tensor& tensor : linear_) {
    if (!tensor.empty()) bytes += tensor.size_bytes();
  }
  return bytes;
}

}  // namespace uniquanf
