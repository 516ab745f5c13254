#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/safetensors/safetensors.h"

namespace uniquanf {
namespace {

struct DTypeRow {
  SafetensorsDType dtype;
  absl::string_view name;
  int bits;
};
constexpr DTypeRow kDTypes[] = {
    {SafetensorsDType::kBool, "BOOL", 8},
    {SafetensorsDType::kF4, "F4", 4},
    {SafetensorsDType::kF6E2M3, "F6_E2M3", 6},
    {SafetensorsDType::kF6E3M2, "F6_E3M2", 6},
    {SafetensorsDType::kU8, "U8", 8},
    {SafetensorsDType::kI8, "I8", 8},
    {SafetensorsDType::kF8E5M2, "F8_E5M2", 8},
    {SafetensorsDType::kF8E4M3, "F8_E4M3", 8},
    {SafetensorsDType::kF8E8M0, "F8_E8M0", 8},
    {SafetensorsDType::kF8E4M3Fnuz, "F8_E4M3FNUZ", 8},
    {SafetensorsDType::kF8E5M2Fnuz, "F8_E5M2FNUZ", 8},
    {SafetensorsDType::kI16, "I16", 16},
    {SafetensorsDType::kU16, "U16", 16},
    {SafetensorsDType::kF16, "F16", 16},
    {SafetensorsDType::kBF16, "BF16", 16},
    {SafetensorsDType::kI32, "I32", 32},
    {SafetensorsDType::kU32, "U32", 32},
    {SafetensorsDType::kF32, "F32", 32},
    {SafetensorsDType::kC64, "C64", 64},
    {SafetensorsDType::kF64, "F64", 64},
    {SafetensorsDType::kI64, "I64", 64},
    {SafetensorsDType::kU64, "U64", 64},
};

const DTypeRow& RowOf(SafetensorsDType dtype) {
  for (const DTypeRow& row : kDTypes) {
    if (row.dtype == dtype) return row;
  }
  UQ_CHECK(false);
}

}  // namespace

absl::string_view SafetensorsDTypeName(SafetensorsDType dtype) { return RowOf(dtype).name; }

std::optional<SafetensorsDType> SafetensorsDTypeNamed(absl::string_view name) {
  for (const DTypeRow& row : kDTypes) {
    if (row.name == name) return row.dtype;
  }
  return std::nullopt;
}

int64_t SafetensorsDTypeBits(SafetensorsDType dtype) { return RowOf(dtype).bits; }

bool IsFullPrecision(SafetensorsDType dtype) {
  return dtype == SafetensorsDType::kF32 || dtype == SafetensorsDType::kF16 ||
         dtype == SafetensorsDType::kBF16;
}

int64_t TensorInfo::num_elements() const {
  int64_t count = 1;
  for (const int64_t dimension : shape) count *= dimension;
  return count;
}

TensorInfo TensorInfo::Part(int64_t first, int64_t count) const {
  const int64_t element_bytes = SafetensorsDTypeBits(dtype) / 8;
  TensorInfo part = *this;
  part.shape = {count};
  part.offset += first * element_bytes;
  part.size_bytes = count * element_bytes;
  return part;
}

absl::StatusOr<uint64_t> TensorBytes(SafetensorsDType dtype, const std::vector<int64_t>& shape) {
  // A dimension of 0 does not excuse an overflow in the others: num_elements multiplies in order.
  int64_t bits = SafetensorsDTypeBits(dtype);
  for (const int64_t dimension : shape) {
    if (dimension < 0) {
      return InvalidInput("TENSOR_SHAPE",
                          absl::StrCat("the dimension ", dimension, " is negative"));
    }
    if (__builtin_mul_overflow(bits, dimension, &bits)) {
      return InvalidInput("TENSOR_SHAPE", "the shape's size overflows 64 bits");
    }
  }
  if (bits % 8 != 0) {
    return InvalidInput("TENSOR_SHAPE",
                        absl::StrCat("the shape's elements of ", SafetensorsDTypeBits(dtype),
                                     " bits fill no whole number of bytes"));
  }
  return static_cast<uint64_t>(bits / 8);
}

}  // namespace uniquanf
