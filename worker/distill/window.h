// Distillation of a window of layers: their stored form is trained so that the whole model's
// next-token distributions come back to the original's, while all layers after them stay as they
// are stored. A step runs from the window's first layer to the logits and back; gradients of
// weights are made for the window's layers only. README.md has the recipe.
//
// Thread safety: one thread per call. Errors: kCancelled; kResourceExhausted (OUT_OF_MEMORY);
// kInternal (LOSS_NOT_FINITE).
#ifndef UNIQUANF_WORKER_DISTILL_WINDOW_H_
#define UNIQUANF_WORKER_DISTILL_WINDOW_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/backend/sequence_buffer.h"
#include "worker/block/block.h"
#include "worker/distill/head_loss.h"
#include "worker/distill/norm_gains.h"
#include "worker/quant/latent_quantizer.h"

namespace uniquanf::distill {

// A layer from the window's first one on.
struct WindowLayer {
  const BlockSpec* block = nullptr;  // borrowed
  BlockWeights weights;              // as stored
  // By linear, of the window's own layers: what is trained; null: a linear layer left as it is.
  // Empty: the layer comes after the window.
  std::vector<std::unique_ptr<quant::LatentState>> states;

  bool trained() const { return !states.empty(); }
};

struct WindowOptions {
  int64_t num_steps = 0;
  int batch_size = 8;        // sequences a step
  double latent_rate = 0;    // learning rates: of u, in steps of the grid
  double scale_rate = 0;     // of α, β and the norms' gains
  int64_t report_every = 8;  // steps between progress calls
  // Each layer keeps what its backward pass needs; else layers share the memory for that and run
  // forward again before it. Changes speed, not bits.
  bool keep_activations = true;
};

// Sequences are rows of both.
struct WindowData {
  const SequenceBuffer* x = nullptr;       // [S, L, H] act: inputs of the first layer
  const SequenceBuffer* target = nullptr;  // the original model's last hidden states
  std::vector<int64_t> training;           // num_steps · batch_size of them, step by step
  std::vector<int64_t> judges;             // held back
};

struct WindowProgress {
  int64_t step = 0, num_steps = 0;
  double loss = 0;  // mean divergence a token of the steps since the last call
};

struct WindowOutcome {
  double initial_divergence = 0;  // of the judges, a token, in nats
  double best_divergence = 0;     // of the state that was kept
  int64_t best_step = 0;          // after how many steps it was; 0: the start
  std::vector<float> losses;      // of each step, before its update
};

class WindowTrainer {
 public:
  // Borrows all but `options`; `layers` and `data` change under it as said below.
  static absl::StatusOr<std::unique_ptr<WindowTrainer>> Create(
      Backend* backend, const Checkpoint& checkpoint, DType act, const RopeTables& rope,
      const WindowOptions& options, const WindowData* data, std::vector<WindowLayer>* layers);
  // Device bytes that a trainer takes beside its layers; for planning. `first`: the window's first
  // layer.
  static uint64_t Bytes(const Backend& backend, const ModelConfig& config, DType act, int first,
                        int batch_size, int64_t sequence_length, bool keep_activations);

  // Trains; the states' codes, α and β and the gains in the layers' weights are then those of the
  // best judged step. The start counts as one. The linear layers' weights in `layers` are whatever
  // the last step left.
  absl::StatusOr<WindowOutcome> Train(const std::function<void(const WindowProgress&)>& progress,
                                      const std::function<bool()>& cancelled);
  // The judges' mean divergence a token with the weights as they are.
  absl::StatusOr<double> Judge();

 private:
  struct Snapshot {
    std::vector<Tensor> codes, alpha, beta;  // of all states in their order
    std::vector<NormGains::Values> gains;
  };

  WindowTrainer(Backend* backend, DType act, const WindowOptions& options, const WindowData* data,
                std::vector<WindowLayer>* layers)
      : backend_(backend), act_(act), options_(options), data_(data), layers_(*layers) {}
  absl::Status Allocate(const Checkpoint& checkpoint, const RopeTables& rope);
  int num_parts() const { return options_.batch_size / micro_batch_; }
  int64_t num_tokens() const { return micro_batch_ * data_->x->shape()[1]; }
  absl::Status LoadSequences(const int64_t* sequences);
  void ForwardLayers();
  void BackwardLayers(bool accumulate, const quant::LatentStep* update);
  absl::Status RunStep(int64_t step, Tensor* divergences);
  absl::Status Save(Snapshot* snapshot);
  absl::Status Restore(const Snapshot& snapshot);
  std::vector<quant::LatentState*> States() const;

  Backend* const backend_;
  const DType act_;
  const WindowOptions options_;
  const WindowData* const data_;
  std::vector<WindowLayer>& layers_;
  int micro_batch_ = 1;                                // sequences at once
  Tensor arena_;                                       // shared by the runners, or empty
  std::vector<std::unique_ptr<BlockRunner>> runners_;  // by layer
  std::vector<BlockGradients> gradients_;              // by layer; f32 where they are sums
  std::vector<NormGains> gains_;                       // by layer of the window
  std::vector<Tensor> hidden_;  // [T, H] act: each layer's input, then the last one's output
  Tensor target_, d_hidden_[2];
  std::unique_ptr<HeadLoss> head_;
};

}  // namespace uniquanf::distill

#endif  // UNIQUANF_WORKER_DISTILL_WINDOW_H_
