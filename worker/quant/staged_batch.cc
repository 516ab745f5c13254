#include "worker/quant/staged_batch.h"

#include <algorithm>

#include "common/base/status.h"

namespace uniquanf::quant {

absl::StatusOr<StagedBatch> StagedBatch::Create(Backend* backend,
                                                const BlockActivations& activations, int size) {
  StagedBatch batch;
  batch.backend_ = backend;
  batch.size_ = size;
  const SequenceSource sources[] = {activations.x_fp, activations.y_fp, activations.x_q};
  for (int i = 0; i < 3; ++i) {
    Kind& kind = batch.kinds_[i];
    kind.source = sources[i];
    if (kind.source.empty() || kind.source.tensor() != nullptr) continue;
    const Shape& all = kind.source.shape();
    for (Tensor* tensor : {&kind.staged, &kind.landing}) {
      UQ_ASSIGN_OR_RETURN(*tensor,
                          Tensor::Allocate(backend, kind.source.dtype(), {size, all[1], all[2]}));
    }
  }
  return batch;
}

absl::Status StagedBatch::Take(int64_t* sequence_index) {
  if (!is_staged()) return absl::OkStatus();
  const bool is_here = !prefetched_.empty() && std::equal(prefetched_.begin(), prefetched_.end(),
                                                          sequence_index, sequence_index + size_);
  if (!prefetched_.empty()) UQ_RETURN_IF_ERROR(backend_->JoinCopies());
  prefetched_.clear();
  for (Kind& kind : kinds_) {
    if (kind.staged.empty()) continue;
    if (is_here) {
      UQ_RETURN_IF_ERROR(backend_->CopyOnDevice(kind.staged.data(), kind.landing.data(),
                                                kind.staged.size_bytes()));
      continue;
    }
    for (int b = 0; b < size_; ++b) {
      UQ_RETURN_IF_ERROR(kind.source.buffer()->Load(sequence_index[b], b, &kind.staged));
    }
  }
  for (int b = 0; b < size_; ++b) sequence_index[b] = b;
  return absl::OkStatus();
}

absl::Status StagedBatch::Prefetch(const int64_t* sequence_index) {
  if (!is_staged()) return absl::OkStatus();
  for (Kind& kind : kinds_) {
    if (kind.staged.empty()) continue;
    for (int b = 0; b < size_; ++b) {
      UQ_RETURN_IF_ERROR(kind.source.buffer()->LoadAside(sequence_index[b], b, &kind.landing));
    }
  }
  prefetched_.assign(sequence_index, sequence_index + size_);
  return absl::OkStatus();
}

}  // namespace uniquanf::quant
