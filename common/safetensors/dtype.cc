#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/safetensors/safetensors.h"

namespace uniquanf {

absl::string_view SafetensorsDTypeName(SafetensorsDType dtype) {
  switch (dtype) {
    case SafetensorsDType::kBool:
      return "BOOL";
    case SafetensorsDType::kU8:
      return "U8";
    case SafetensorsDType::kI8:
      return "I8";
    case SafetensorsDType::kI16:
      return "I16";
    case SafetensorsDType::kU16:
      return "U16";
    case SafetensorsDType::kF16:
      return "F16";
    case SafetensorsDType::kBF16:
      return "BF16";
    case SafetensorsDType::kI32:
      return "I32";
    case SafetensorsDType::kU32:
      return "U32";
    case SafetensorsDType::kF32:
      return "F32";
    case SafetensorsDType::kF64:
      return "F64";
    case SafetensorsDType::kI64:
      return "I64";
    case SafetensorsDType::kU64:
      return "U64";
  }
  UQ_CHECK(false);
}

int64_t SafetensorsDTypeBytes(SafetensorsDType dtype) {
  switch (dtype) {
    case SafetensorsDType::kBool:
    case SafetensorsDType::kU8:
    case SafetensorsDType::kI8:
      return 1;
    case SafetensorsDType::kI16:
    case SafetensorsDType::kU16:
    case SafetensorsDType::kF16:
    case SafetensorsDType::kBF16:
      return 2;
    case SafetensorsDType::kI32:
    case SafetensorsDType::kU32:
    case SafetensorsDType::kF32:
      return 4;
    case SafetensorsDType::kF64:
    case SafetensorsDType::kI64:
    case SafetensorsDType::kU64:
      return 8;
  }
  UQ_CHECK(false);
}

int64_t TensorInfo::num_elements() const {
  int64_t count = 1;
  for (const int64_t dimension : shape) count *= dimension;
  return count;
}

absl::StatusOr<uint64_t> TensorBytes(SafetensorsDType dtype, const std::vector<int64_t>& shape) {
  // A dimension of 0 does not excuse an overflow in the others: num_elements multiplies in order.
  int64_t bytes = SafetensorsDTypeBytes(dtype);
  for (const int64_t dimension : shape) {
    if (dimension < 0) {
      return InvalidInput("TENSOR_SHAPE",
                          absl::StrCat("the dimension ", dimension, " is negative"));
    }
    if (__builtin_mul_overflow(bytes, dimension, &bytes)) {
      return InvalidInput("TENSOR_SHAPE", "the shape's size overflows 64 bits");
    }
  }
  return static_cast<uint64_t>(bytes);
}

}  // namespace uniquanf
