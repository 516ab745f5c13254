#include "worker/backend/tensor.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "common/base/check.h"
#include "common/base/parallel.h"
#include "common/safetensors/float_conversion.h"

namespace uniquanf {
namespace {
constexpr int64_t kConversionGrain = 1 << 18;  // elements a thread converts at a time
constexpr int64_t kUploadPiece = 1 << 23;      // elements converted before they are copied
}  // namespace

size_t DTypeBytes(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
    case DType::kInt32:
      return 4;
    case DType::kBfloat16:
      return 2;
    case DType::kUint8:
      return 1;
  }
  return 0;
}

const char* DTypeName(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "f32";
    case DType::kInt32:
      return "i32";
    case DType::kBfloat16:
      return "bf16";
    case DType::kUint8:
      return "u8";
  }
  return "?";
}

absl::StatusOr<Tensor> Tensor::Allocate(Backend* backend, DType dtype, Shape shape) {
  Tensor tensor;
  tensor.dtype_ = dtype;
  tensor.shape_ = std::move(shape);
  absl::StatusOr<void*> data = backend->Allocate(tensor.size_bytes());
  if (!data.ok()) return data.status();
  tensor.backend_ = backend;
  tensor.data_ = *data;
  return tensor;
}

absl::StatusOr<Tensor> Tensor::FromFloats(Backend* backend, DType dtype, Shape shape,
                                          const float* data) {
  absl::StatusOr<Tensor> tensor = Allocate(backend, dtype, std::move(shape));
  if (!tensor.ok()) return tensor.status();
  absl::Status status = tensor->CopyFromFloats(data);
  if (!status.ok()) return status;
  return tensor;
}

Tensor Tensor::View(Backend* backend, void* data, DType dtype, Shape shape) {
  Tensor tensor;
  tensor.backend_ = backend;
  tensor.data_ = data;
  tensor.owns_ = false;
  tensor.dtype_ = dtype;
  tensor.shape_ = std::move(shape);
  return tensor;
}

Tensor::~Tensor() {
  if (data_ != nullptr && owns_) backend_->Free(data_);
}

Tensor::Tensor(Tensor&& other) noexcept
    : backend_(other.backend_),
      data_(std::exchange(other.data_, nullptr)),
      owns_(other.owns_),
      dtype_(other.dtype_),
      shape_(std::exchange(other.shape_, {})) {}

Tensor& Tensor::operator=(Tensor&& other) noexcept {
  if (this != &other) {
    if (data_ != nullptr && owns_) backend_->Free(data_);
    backend_ = other.backend_;
    data_ = std::exchange(other.data_, nullptr);
    owns_ = other.owns_;
    dtype_ = other.dtype_;
    shape_ = std::exchange(other.shape_, {});
  }
  return *this;
}

int64_t Tensor::num_elements() const {
  int64_t count = 1;
  for (int64_t dim : shape_) count *= dim;
  return count;
}

float* Tensor::f32() {
  UQ_CHECK(dtype_ == DType::kFloat32);
  return static_cast<float*>(data_);
}
const float* Tensor::f32() const { return const_cast<Tensor*>(this)->f32(); }
uint8_t* Tensor::u8() {
  UQ_CHECK(dtype_ == DType::kUint8);
  return static_cast<uint8_t*>(data_);
}
const uint8_t* Tensor::u8() const { return const_cast<Tensor*>(this)->u8(); }
int32_t* Tensor::i32() {
  UQ_CHECK(dtype_ == DType::kInt32);
  return static_cast<int32_t*>(data_);
}
const int32_t* Tensor::i32() const { return const_cast<Tensor*>(this)->i32(); }

absl::StatusOr<std::vector<float>> Tensor::ToFloats() const {
  std::vector<float> out(num_elements());
  if (dtype_ == DType::kFloat32) {
    absl::Status status = backend_->CopyToHost(out.data(), data_, size_bytes());
    if (!status.ok()) return status;
    return out;
  }
  UQ_CHECK(dtype_ == DType::kBfloat16);
  std::vector<uint16_t> raw(out.size());
  absl::Status status = backend_->CopyToHost(raw.data(), data_, size_bytes());
  if (!status.ok()) return status;
  for (size_t i = 0; i < raw.size(); ++i) out[i] = Bfloat16ToFloat(raw[i]);
  return out;
}

absl::Status Tensor::CopyFromFloats(const float* data) {
  return CopyFromFloats(data, 0, num_elements());
}

absl::Status Tensor::CopyFromFloats(const float* data, int64_t first, int64_t count) {
  UQ_CHECK(first >= 0 && count >= 0 && first + count <= num_elements());
  if (dtype_ == DType::kFloat32) {
    return backend_->CopyFromHost(f32() + first, data, count * sizeof(float));
  }
  UQ_CHECK(dtype_ == DType::kBfloat16);
  // In pieces, so that the buffer stays in the cache's reach and is not as large as the tensor.
  // Page-locked, which makes the copy several times as fast.
  const int64_t piece = std::min(count, kUploadPiece);
  const absl::StatusOr<void*> buffer = backend_->AllocateHost(piece * sizeof(uint16_t));
  if (!buffer.ok()) return buffer.status();
  auto* raw = static_cast<uint16_t*>(*buffer);
  uint16_t* to = static_cast<uint16_t*>(data_) + first;
  absl::Status status;
  for (int64_t done = 0; done < count && status.ok(); done += piece) {
    const int64_t now = std::min(piece, count - done);
    ParallelRanges(now, kConversionGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) raw[i] = FloatToBfloat16(data[done + i]);
    });
    status = backend_->CopyFromHost(to + done, raw, now * sizeof(uint16_t));
    if (status.ok()) status = backend_->Synchronize();
  }
  backend_->FreeHost(raw);
  return status;
}

}  // namespace uniquanf
