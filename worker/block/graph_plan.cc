#include "worker/block/graph_plan.h"

#include <algorithm>
#include <numeric>
#include <variant>

#include "common/base/check.h"

namespace uniquanf {
namespace {

constexpr int64_t kAlignment = 512;  // what the CUDA allocator gives too

int64_t BytesOf(DType dtype, const Shape& shape) {
  int64_t elements = 1;
  for (int64_t dim : shape) elements *= dim;
  return elements * static_cast<int64_t>(DTypeBytes(dtype));
}

}  // namespace

GraphPlan::GraphPlan(const BlockSpec& spec, const std::vector<std::unique_ptr<NodeKernel>>& kernels,
                     const NodeShape& shape)
    : kernels_(kernels), num_nodes_(static_cast<int>(kernels.size())) {
  UQ_CHECK(num_nodes_ > 0 && !spec.slots.empty());
  FindFused(spec);
  FindWanted(spec);
  values_.assign(spec.slots.size(), kNowhere);
  gradients_.assign(spec.slots.size(), kNowhere);
  buffers_.resize(num_nodes_);
  temporaries_.resize(num_nodes_);
  PlanForward(spec, shape);
  if (shape.with_backward) PlanBackward(spec, shape);
  PlaceStorages();
}

int GraphPlan::New(int64_t bytes, int first, int last) {
  storages_.push_back({(bytes + kAlignment - 1) / kAlignment * kAlignment, first, last});
  return num_storages() - 1;
}

int64_t GraphPlan::SlotBytes(const BlockSpec& spec, const NodeShape& shape, int slot) const {
  return BytesOf(shape.act, {shape.num_tokens(), spec.slots[slot]});
}

// An addition followed by a norm of the sum over whole rows is one op, and so one event.
void GraphPlan::FindFused(const BlockSpec& spec) {
  fused_.assign(num_nodes_, false);
  forward_events_.resize(num_nodes_);
  std::iota(forward_events_.begin(), forward_events_.end(), 0);
  for (int i = 0; i + 1 < num_nodes_; ++i) {
    const auto* add = std::get_if<AddNode>(&spec.nodes[i]);
    const auto* norm = std::get_if<NormNode>(&spec.nodes[i + 1]);
    fused_[i] = add != nullptr && norm != nullptr && norm->in == add->out && add->factor == 1 &&
                norm->shape.width == spec.slots[norm->in] && IsPlainRmsNorm(spec, *norm);
    if (fused_[i]) forward_events_[i + 1] = i;
  }
}

void GraphPlan::FindWanted(const BlockSpec& spec) {
  for (int with_dx : {0, 1}) {
    wants_[with_dx].assign(spec.slots.size(), false);
    wants_[with_dx][0] = with_dx;
    for (const auto& kernel : kernels_) {
      bool wanted = kernel->trains();
      for (const NodeInput& input : kernel->inputs()) {
        wanted = wanted || wants_[with_dx][input.slot];
      }
      wants_[with_dx][kernel->output()] = wanted;
    }
  }
}

void GraphPlan::PlanForward(const BlockSpec& spec, const NodeShape& shape) {
  // The last event that reads each value.
  std::vector<int> last(spec.slots.size(), 0);
  for (int i = 0; i < num_nodes_; ++i) {
    auto used = [&](int slot, bool kept) {
      last[slot] = std::max(last[slot],
                            kept && shape.with_backward ? backward_event(i) : forward_events_[i]);
    };
    for (const NodeInput& input : kernels_[i]->inputs()) used(input.slot, input.kept);
    used(kernels_[i]->output(), kernels_[i]->keeps_output());
  }
  const int output = kernels_.back()->output();
  values_[0] = values_[output] = kExternal;
  for (int i = 0; i < num_nodes_; ++i) {
    const int event = forward_events_[i], slot = kernels_[i]->output();
    for (const NodeBuffer& buffer : kernels_[i]->buffers(shape)) {
      const bool backward = buffer.life == NodeBuffer::Life::kBackward;
      const bool kept = backward || (buffer.life == NodeBuffer::Life::kKept && shape.with_backward);
      buffers_[i].push_back(New(BytesOf(buffer.dtype, buffer.shape),
                                backward ? backward_event(i) : event,
                                kept ? backward_event(i) : event));
    }
    if (slot == output) continue;
    if (kernels_[i]->in_place()) {
      const int source = values_[kernels_[i]->inputs()[0].slot];
      if (source >= 0 && storages_[source].last == event) {
        values_[slot] = source;
        storages_[source].last = last[slot];
        continue;
      }
    }
    values_[slot] = New(SlotBytes(spec, shape, slot), event, last[slot]);
  }
}

void GraphPlan::PlanBackward(const BlockSpec& spec, const NodeShape& shape) {
  std::vector<int> last(spec.slots.size(), 2 * num_nodes_);  // the producer's backward pass
  std::vector<int> num_readers(spec.slots.size(), 0), num_given(spec.slots.size(), 0);
  for (int i = 0; i < num_nodes_; ++i) {
    last[kernels_[i]->output()] = backward_event(i);
    for (const NodeInput& input : kernels_[i]->inputs()) {
      if (input.gradient != GradientMode::kNone) ++num_readers[input.slot];
    }
  }
  gradients_[0] = gradients_[kernels_.back()->output()] = kExternal;
  for (int i = num_nodes_ - 1; i >= 0; --i) {
    const int event = backward_event(i), out = gradients_[kernels_[i]->output()];
    for (const NodeInput& input : kernels_[i]->inputs()) {
      const int slot = input.slot;
      temporaries_[i].push_back(kNowhere);
      if (input.gradient == GradientMode::kNone || !wants(slot, true)) continue;
      const bool first = num_given[slot]++ == 0;
      int& storage = gradients_[slot];
      const int64_t bytes = SlotBytes(spec, shape, slot);
      if (first && storage == kNowhere) {
        if (input.gradient == GradientMode::kPasses && num_readers[slot] == 1) {
          storage = out;
          if (out >= 0) storages_[out].last = std::max(storages_[out].last, last[slot]);
        } else if (input.gradient == GradientMode::kTransforms && out >= 0 &&
                   storages_[out].last == event) {
          storage = out;
          storages_[out].last = last[slot];
        } else {
          storage = New(bytes, event, last[slot]);
        }
      } else if (!first && (input.gradient == GradientMode::kOverwrites ||
                            input.gradient == GradientMode::kTransforms)) {
        temporaries_[i].back() = New(bytes, event, event);
      }
    }
  }
}

// The largest first, each at the lowest place where nothing lies that lives at the same time.
void GraphPlan::PlaceStorages() {
  std::vector<int> order(storages_.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return storages_[a].bytes > storages_[b].bytes; });
  std::vector<int> placed;  // by offset
  for (int index : order) {
    Storage& storage = storages_[index];
    int64_t offset = 0;
    for (int other : placed) {
      const Storage& there = storages_[other];
      if (there.last < storage.first || storage.last < there.first) continue;
      if (there.offset >= offset + storage.bytes) break;
      offset = std::max(offset, there.offset + there.bytes);
    }
    storage.offset = offset;
    arena_bytes_ = std::max(arena_bytes_, static_cast<uint64_t>(offset + storage.bytes));
    placed.insert(
        std::upper_bound(placed.begin(), placed.end(), index,
                         [&](int a, int b) { return storages_[a].offset < storages_[b].offset; }),
        index);
  }
}

}  // namespace uniquanf
