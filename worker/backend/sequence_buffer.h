// Calibration activations: S sequences of [L, H], on the device, or in page-locked host memory when
// the device has no room. Which one it is changes no bits, only speed.
//
// Thread safety: as Backend. Ownership: move-only, frees its memory; the Backend must outlive it.
// Errors: kResourceExhausted (OUT_OF_MEMORY) from Allocate; device errors.
#ifndef UNIQUANF_WORKER_BACKEND_SEQUENCE_BUFFER_H_
#define UNIQUANF_WORKER_BACKEND_SEQUENCE_BUFFER_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/backend/backend.h"
#include "worker/backend/tensor.h"

namespace uniquanf {

class SequenceBuffer {
 public:
  enum class Placement { kDevice, kHost };

  SequenceBuffer() = default;  // empty
  static absl::StatusOr<SequenceBuffer> Allocate(Backend* backend, Placement placement, DType act,
                                                 int64_t num_sequences, int64_t seq_len,
                                                 int64_t hidden_size);
  ~SequenceBuffer();
  SequenceBuffer(SequenceBuffer&& other) noexcept;
  SequenceBuffer& operator=(SequenceBuffer&& other) noexcept;

  bool empty() const { return shape_.empty(); }
  bool on_device() const { return host_ == nullptr; }
  const Shape& shape() const { return shape_; }  // {S, L, H}
  DType dtype() const { return dtype_; }
  size_t sequence_bytes() const;
  // REQUIRES: on_device().
  const Tensor& tensor() const { return device_; }

  // Copies sequence `s` to row `row` of `out` [rows·L, H] or [rows, L, H], in stream order.
  absl::Status Load(int64_t s, int64_t row, Tensor* out) const;
  // Load beside the ops issued next (Backend::CopyFromHostAside). REQUIRES: !on_device().
  absl::Status LoadAside(int64_t s, int64_t row, Tensor* out) const;
  // The other way, from the first row of `in`.
  absl::Status Store(int64_t s, const Tensor& in);
  absl::StatusOr<SequenceBuffer> Clone() const;

 private:
  Backend* backend_ = nullptr;
  DType dtype_ = DType::kFloat32;
  Shape shape_;
  Tensor device_;         // or
  char* host_ = nullptr;  // page-locked
};

// A borrowed view of activations that are either a device tensor [S, L, H] or a SequenceBuffer;
// null where there are none.
class SequenceSource {
 public:
  SequenceSource() = default;
  SequenceSource(std::nullptr_t) {}
  SequenceSource(const Tensor* tensor) : tensor_(tensor) {}
  SequenceSource(const SequenceBuffer* buffer)
      : tensor_(buffer != nullptr && buffer->on_device() ? &buffer->tensor() : nullptr),
        buffer_(buffer) {}

  bool empty() const { return tensor_ == nullptr && buffer_ == nullptr; }
  const Tensor* tensor() const { return tensor_; }          // null: on the host
  const SequenceBuffer* buffer() const { return buffer_; }  // not null when tensor() is null
  const Shape& shape() const { return tensor_ != nullptr ? tensor_->shape() : buffer_->shape(); }
  DType dtype() const { return tensor_ != nullptr ? tensor_->dtype() : buffer_->dtype(); }

 private:
  const Tensor* tensor_ = nullptr;
  const SequenceBuffer* buffer_ = nullptr;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_BACKEND_SEQUENCE_BUFFER_H_
