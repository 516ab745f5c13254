// The third part of a layer task: what was optimized takes its stored form, which is packed and
// written in other threads while the device goes on. Internal to worker/task.
#ifndef UNIQUANF_WORKER_TASK_LAYER_STORE_H_
#define UNIQUANF_WORKER_TASK_LAYER_STORE_H_

#include <future>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/artifact/layout.h"
#include "worker/quant/quantizer.h"
#include "worker/task/layer_optimize.h"

namespace uniquanf {

struct StoredShard {
  std::string weights_sha256;         // of the original linear weights, unscaled
  std::vector<ModuleResult> modules;  // by linear
  std::string sha256;                 // the shard's, an object of the work store
  uint64_t size_bytes = 0;
};

// A shard that is being made in other threads. Owns them and what they read, and nothing on the
// device; the destructor waits for them. Thread safety: none.
class StoringShard {
 public:
  // Starts to digest the original weights.
  StoringShard(std::shared_ptr<const LayerTask> task, std::shared_ptr<const HostBlock> original);
  StoringShard(const StoringShard&) = delete;
  StoringShard& operator=(const StoringShard&) = delete;

  // Linear weights of the original that were scaled (Optimized). Call before Pack.
  void SetScaled(std::map<int, std::vector<float>> scaled) { scaled_ = std::move(scaled); }
  // Starts to pack linear layer l; those that are not given stay in full precision.
  void Pack(int l, UnifiedLinear unified);
  // The layer's vectors of these stored names (inside the layer) get these bytes. Call before
  // Write.
  void SetChanged(std::map<std::string, std::string> changed) { changed_ = std::move(changed); }
  // Starts to write, as soon as everything is packed. Call once, after the last Pack.
  void Write();
  // Waits for it. Call once, after Write.
  absl::StatusOr<StoredShard> Wait();

 private:
  absl::Status StoreShard();  // its digest and size go to stored_

  const std::shared_ptr<const LayerTask> task_;
  const std::shared_ptr<const HostBlock> original_;
  StoredShard stored_;
  std::vector<PackedLinear> packed_;  // by linear
  std::map<int, std::vector<float>> scaled_;
  std::map<std::string, std::string> changed_;
  // Last, so that what runs in other threads is waited for before what it uses goes.
  std::future<std::string> weights_sha256_;
  std::vector<std::future<void>> packing_;
  std::future<absl::Status> writing_;
};

// The stored weights of a linear layer in place of those that it was trained with. Waits for the
// device.
absl::Status WriteStored(Backend* backend, const UnifiedLinear& unified,
                         const quant::StoredCodes& codes, Tensor* weight);

// Unifies every quantized layer and starts to store it; from here on only the stored form counts.
// Frees the states; where the block is reconstructed `optimized->weights` then hold the stored
// weights.
absl::Status StartStoring(const LayerTask& task, Optimized* optimized, StoringShard* storing);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_LAYER_STORE_H_
