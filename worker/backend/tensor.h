// Dense, row-major device memory with a shape and an element type.
//
// Thread safety: as Backend. Ownership: a Tensor frees its memory when destroyed, unless it is a
// view of memory that somebody else owns; the Backend must outlive it. Move-only.
#ifndef UNIQUANF_WORKER_BACKEND_TENSOR_H_
#define UNIQUANF_WORKER_BACKEND_TENSOR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/backend/backend.h"

namespace uniquanf {

enum class DType { kFloat32, kBfloat16, kInt32, kUint8 };
size_t DTypeBytes(DType dtype);
const char* DTypeName(DType dtype);

using Shape = std::vector<int64_t>;

class Tensor {
 public:
  Tensor() = default;  // empty: no memory, rank 0
  static absl::StatusOr<Tensor> Allocate(Backend* backend, DType dtype, Shape shape);
  // Allocates and copies. `data` holds the product of `shape` floats; rounds to nearest even for
  // bf16.
  static absl::StatusOr<Tensor> FromFloats(Backend* backend, DType dtype, Shape shape,
                                           const float* data);
  // Memory that outlives the view and is not freed by it.
  static Tensor View(Backend* backend, void* data, DType dtype, Shape shape);
  ~Tensor();
  Tensor(Tensor&& other) noexcept;
  Tensor& operator=(Tensor&& other) noexcept;
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;

  bool empty() const { return data_ == nullptr; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t dim(int i) const { return shape_[i]; }
  int64_t num_elements() const;
  size_t size_bytes() const { return static_cast<size_t>(num_elements()) * DTypeBytes(dtype_); }
  Backend* backend() const { return backend_; }

  void* data() { return data_; }
  const void* data() const { return data_; }
  // Typed device pointers; CHECK that the element type matches.
  float* f32();
  const float* f32() const;
  uint8_t* u8();
  const uint8_t* u8() const;
  int32_t* i32();
  const int32_t* i32() const;

  // Copies to host floats (f32 or bf16 only), waiting for the device.
  absl::StatusOr<std::vector<float>> ToFloats() const;
  absl::Status CopyFromFloats(const float* data);
  // Elements `first`..`first + count` − 1 only.
  absl::Status CopyFromFloats(const float* data, int64_t first, int64_t count);

 private:
  Backend* backend_ = nullptr;
  void* data_ = nullptr;
  bool owns_ = true;
  DType dtype_ = DType::kFloat32;
  Shape shape_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_BACKEND_TENSOR_H_
