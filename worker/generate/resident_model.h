// A language model whole on a device, for work that needs all of its layers for every token. Layers
// that an artifact stores quantized stay packed (worker/packed); a tied head shares the embedding.
//
// Thread safety: as Backend. The Backend and the Checkpoint outlive it. Errors: those of
// Checkpoint; kResourceExhausted (OUT_OF_MEMORY) where the device cannot hold the model;
// kCancelled.
#ifndef UNIQUANF_WORKER_GENERATE_RESIDENT_MODEL_H_
#define UNIQUANF_WORKER_GENERATE_RESIDENT_MODEL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/stop_token.h"
#include "worker/model/checkpoint.h"
#include "worker/model/model_ends.h"

namespace uniquanf {

struct ResidentOptions {
  DType act = DType::kFloat32;
  bool keep_packed = true;  // false: quantized layers are dequantized
  StopToken stop;
  std::function<void(int64_t done, int64_t total)> progress;  // in layers; may be empty
};

class ResidentModel {
 public:
  // Rows that the head takes at once.
  static constexpr int64_t kHeadRows = 64;

  static absl::StatusOr<std::unique_ptr<ResidentModel>> Load(Backend* backend,
                                                             const Checkpoint& checkpoint,
                                                             const ResidentOptions& options);

  Backend* backend() const { return backend_; }
  DType act() const { return act_; }
  const Checkpoint& checkpoint() const { return checkpoint_; }
  const ModelConfig& config() const { return checkpoint_.config(); }
  const BlockWeights& weights(int layer) const { return layers_[layer].weights; }
  const PackedBlock& packed(int layer) const { return layers_[layer].packed; }
  packed::Workspace* workspace() { return &workspace_; }
  // [V, H], act or on the CPU perhaps bf16.
  const Tensor& embedding() const { return embedding_.empty() ? head_->head() : embedding_; }
  // logits [R, V] of the last block's output x [R, H], for any R.
  void ApplyHead(const Tensor& x, Tensor* logits);
  // Device memory held by weights: blocks, embedding and head.
  uint64_t weight_bytes() const { return weight_bytes_; }

 private:
  struct Layer {
    BlockWeights weights;
    PackedBlock packed;
  };
  ResidentModel(Backend* backend, const Checkpoint& checkpoint, DType act)
      : backend_(backend), checkpoint_(checkpoint), act_(act) {}
  absl::Status LoadEnds();

  Backend* const backend_;
  const Checkpoint& checkpoint_;
  const DType act_;
  std::vector<Layer> layers_;
  packed::Workspace workspace_;
  std::unique_ptr<HeadEnd> head_;
  Tensor embedding_;  // empty: the head's matrix is it
  uint64_t weight_bytes_ = 0;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_GENERATE_RESIDENT_MODEL_H_
