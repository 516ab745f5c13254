#include "worker/backend/sequence_buffer.h"

#include <algorithm>
#include <utility>

namespace uniquanf {

absl::StatusOr<SequenceBuffer> SequenceBuffer::Allocate(Backend* backend, Placement placement,
                                                        DType act, int64_t num_sequences,
                                                        int64_t seq_len, int64_t hidden_size) {
  SequenceBuffer buffer;
  buffer.backend_ = backend;
  buffer.dtype_ = act;
  const Shape shape = {num_sequences, seq_len, hidden_size};
  if (placement == Placement::kDevice) {
    absl::StatusOr<Tensor> tensor = Tensor::Allocate(backend, act, shape);
    if (!tensor.ok()) return tensor.status();
    buffer.device_ = *std::move(tensor);
  } else {
    absl::StatusOr<void*> host = backend->AllocateHost(
        static_cast<size_t>(num_sequences * seq_len * hidden_size) * DTypeBytes(act));
    if (!host.ok()) return host.status();
    buffer.host_ = static_cast<char*>(*host);
  }
  buffer.shape_ = shape;
  return buffer;
}

SequenceBuffer::~SequenceBuffer() {
  if (host_ != nullptr) backend_->FreeHost(host_);
}

SequenceBuffer::SequenceBuffer(SequenceBuffer&& other) noexcept
    : backend_(other.backend_),
      dtype_(other.dtype_),
      shape_(std::exchange(other.shape_, {})),
      device_(std::move(other.device_)),
      host_(std::exchange(other.host_, nullptr)) {}

SequenceBuffer& SequenceBuffer::operator=(SequenceBuffer&& other) noexcept {
  if (this != &other) {
    if (host_ != nullptr) backend_->FreeHost(host_);
    backend_ = other.backend_;
    dtype_ = other.dtype_;
    shape_ = std::exchange(other.shape_, {});
    device_ = std::move(other.device_);
    host_ = std::exchange(other.host_, nullptr);
  }
  return *this;
}

size_t SequenceBuffer::sequence_bytes() const {
  return static_cast<size_t>(shape_[1] * shape_[2]) * DTypeBytes(dtype_);
}

absl::Status SequenceBuffer::Load(int64_t s, int64_t row, Tensor* out) const {
  const size_t bytes = sequence_bytes();
  char* to = static_cast<char*>(out->data()) + row * bytes;
  if (host_ != nullptr) return backend_->CopyFromHost(to, host_ + s * bytes, bytes);
  return backend_->CopyOnDevice(to, static_cast<const char*>(device_.data()) + s * bytes, bytes);
}

absl::Status SequenceBuffer::LoadAside(int64_t s, int64_t row, Tensor* out) const {
  const size_t bytes = sequence_bytes();
  return backend_->CopyFromHostAside(static_cast<char*>(out->data()) + row * bytes,
                                     host_ + s * bytes, bytes);
}

absl::Status SequenceBuffer::Store(int64_t s, const Tensor& in) {
  const size_t bytes = sequence_bytes();
  if (host_ != nullptr) return backend_->CopyToHost(host_ + s * bytes, in.data(), bytes);
  return backend_->CopyOnDevice(static_cast<char*>(device_.data()) + s * bytes, in.data(), bytes);
}

absl::StatusOr<SequenceBuffer> SequenceBuffer::Clone() const {
  absl::StatusOr<SequenceBuffer> copy =
      Allocate(backend_, on_device() ? Placement::kDevice : Placement::kHost, dtype_, shape_[0],
               shape_[1], shape_[2]);
  if (!copy.ok()) return copy.status();
  const size_t bytes = sequence_bytes() * static_cast<size_t>(shape_[0]);
  if (host_ == nullptr) {
    const absl::Status copied = backend_->CopyOnDevice(copy->device_.data(), device_.data(), bytes);
    if (!copied.ok()) return copied;
  } else {
    const absl::Status settled = backend_->Synchronize();
    if (!settled.ok()) return settled;
    std::copy(host_, host_ + bytes, copy->host_);
  }
  return copy;
}

}  // namespace uniquanf
