// The block that the next layer's task will likely need: its weights are read in a thread of their
// own while the present layer is optimized, and copied to the device beside its steps where there
// is room. A cache: what is not here, or is another layer's, is loaded anew. Internal to
// worker/task.
//
// Thread safety: the task's thread only. The Backend outlives it.
#ifndef UNIQUANF_WORKER_TASK_NEXT_BLOCK_H_
#define UNIQUANF_WORKER_TASK_NEXT_BLOCK_H_

#include <cstdint>
#include <functional>
#include <future>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/backend/tensor.h"
#include "worker/model/checkpoint.h"

namespace uniquanf {

class NextBlock {
 public:
  using Load = std::function<absl::StatusOr<HostBlock>()>;
  struct Ready {
    HostBlock host;
    // As UploadBlock takes them; empty where they were not copied.
    std::vector<Tensor> linear;
  };

  NextBlock() = default;
  ~NextBlock() { Drop(); }
  NextBlock(const NextBlock&) = delete;
  NextBlock& operator=(const NextBlock&) = delete;

  // Drops what is here and starts to read the layer. With `copy` its linear weights, act, also go
  // to the device as soon as they are read and Poll is called.
  void Start(const std::string& plan_sha256, int layer, Load load, Backend* backend,
             const BlockSpec& spec, DType act, bool copy);
  // Call often: starts the copies once the weights are there. Does not wait.
  void Poll();
  // The weights are not there yet.
  bool IsReading() const;
  bool Is(const std::string& plan_sha256, int layer) const {
    return reading_.valid() && plan_sha256_ == plan_sha256 && layer_ == layer;
  }
  // What was read, waited for, if it is this layer; drops it otherwise.
  std::optional<absl::StatusOr<Ready>> Take(const std::string& plan_sha256, int layer);
  void Drop();

  uint64_t device_bytes() const;
  // What the copies of a block of this shape take on the device.
  static uint64_t DeviceBytes(const BlockSpec& spec, DType act);

 private:
  // Room for `size_bytes` of page-locked memory; false where there is none. The reading thread's.
  bool ReservePinned(size_t size_bytes);

  std::string plan_sha256_;
  int layer_ = -1;
  std::future<absl::StatusOr<HostBlock>> reading_;
  Backend* backend_ = nullptr;
  BlockSpec spec_;
  DType act_ = DType::kFloat32;
  bool copy_ = false;           // still to be done
  std::vector<Tensor> linear_;  // by linear; empty where nothing was copied
  // The linear weights one after the other, act; kept from layer to layer.
  char* pinned_ = nullptr;
  size_t pinned_bytes_ = 0;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_NEXT_BLOCK_H_
