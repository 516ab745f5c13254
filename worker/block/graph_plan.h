// Where the values and gradients of a graph lie: one arena, in which what is not needed any more
// makes room. Internal to worker/block. The plan is a function of the spec and the shape alone.
#ifndef UNIQUANF_WORKER_BLOCK_GRAPH_PLAN_H_
#define UNIQUANF_WORKER_BLOCK_GRAPH_PLAN_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "worker/block/node_kernel.h"

namespace uniquanf {

class GraphPlan {
 public:
  // Of a slot's value or gradient that the caller gives: x, y, dx, dy.
  static constexpr int kExternal = -2;
  static constexpr int kNowhere = -1;

  GraphPlan(const BlockSpec& spec, const std::vector<std::unique_ptr<NodeKernel>>& kernels,
            const NodeShape& shape);

  int num_storages() const { return static_cast<int>(storages_.size()); }
  int64_t offset(int storage) const { return storages_[storage].offset; }
  uint64_t arena_bytes() const { return arena_bytes_; }
  int value(int slot) const { return values_[slot]; }
  int gradient(int slot) const { return gradients_[slot]; }
  int buffer(int node, int index) const { return buffers_[node][index]; }
  // Where input i's gradient is computed before it is added, or kNowhere.
  int temporary(int node, int i) const { return temporaries_[node][i]; }
  // Node is an addition that runs together with the norm after it.
  bool fused(int node) const { return fused_[node]; }
  // Whether the gradient of a slot is needed, for the weights or (with_dx) also for the input.
  bool wants(int slot, bool with_dx) const { return wants_[with_dx][slot]; }

 private:
  // Memory from one event to another, both included. Events are the nodes' forward passes in order,
  // then their backward passes in reverse.
  struct Storage {
    int64_t bytes;
    int first, last;
    int64_t offset = 0;
  };

  void FindFused(const BlockSpec& spec);
  void FindWanted(const BlockSpec& spec);
  void PlanForward(const BlockSpec& spec, const NodeShape& shape);
  void PlanBackward(const BlockSpec& spec, const NodeShape& shape);
  void PlaceStorages();
  int New(int64_t bytes, int first, int last);
  int64_t SlotBytes(const BlockSpec& spec, const NodeShape& shape, int slot) const;
  int backward_event(int node) const { return 2 * num_nodes_ - 1 - node; }

  const std::vector<std::unique_ptr<NodeKernel>>& kernels_;
  const int num_nodes_;
  std::vector<int> forward_events_;
  std::vector<bool> fused_;
  std::vector<bool> wants_[2];
  std::vector<Storage> storages_;
  std::vector<int> values_, gradients_;
  std::vector<std::vector<int>> buffers_, temporaries_;
  uint64_t arena_bytes_ = 0;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_BLOCK_GRAPH_PLAN_H_
