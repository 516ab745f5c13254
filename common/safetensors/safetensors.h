// The safetensors format (huggingface/safetensors): 8 bytes of little-endian header length, a JSON
// header {name: {dtype, shape, data_offsets}}, then the tensors' bytes. Files are untrusted: the
// reader checks every number in the header against the object's size before it allocates or reads.
//
// Thread safety: SafetensorsFile is immutable after Open and thread-safe.
// Errors: kInvalidArgument with reason NOT_SAFETENSORS (says what the file is instead),
// SAFETENSORS_TRUNCATED, SAFETENSORS_HEADER_TOO_LARGE,
// SAFETENSORS_BAD_HEADER, SAFETENSORS_BAD_OFFSETS (beyond the file, overlapping, or not matching
// shape × dtype), TENSOR_NOT_FOUND, TENSOR_DTYPE, TENSOR_SHAPE; store errors pass through.
#ifndef UNIQUANF_COMMON_SAFETENSORS_SAFETENSORS_H_
#define UNIQUANF_COMMON_SAFETENSORS_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/object_store/object_store.h"
#include "common/safetensors/float_conversion.h"

namespace uniquanf {

// Every type of the format; of those below 16 bits floats have exponent and mantissa in their
// names.
enum class SafetensorsDType {
  kBool,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E4M3Fnuz,
  kF8E5M2Fnuz,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kC64,
  kF64,
  kI64,
  kU64
};

// "F32", "BF16", ... as the format spells them.
absl::string_view SafetensorsDTypeName(SafetensorsDType dtype);
// The type that is spelled so; nullopt: the format has none.
std::optional<SafetensorsDType> SafetensorsDTypeNamed(absl::string_view name);
// Of one element. Elements of less than a byte lie packed in a tensor of whole bytes.
int64_t SafetensorsDTypeBits(SafetensorsDType dtype);
// F32, F16 or BF16: what values of full precision are stored as.
bool IsFullPrecision(SafetensorsDType dtype);

struct TensorInfo {
  std::string name;
  SafetensorsDType dtype = SafetensorsDType::kF32;
  std::vector<int64_t> shape;  // empty for a scalar
  uint64_t offset = 0;         // absolute, in the file
  uint64_t size_bytes = 0;
  int64_t num_elements() const;
  // The elements [first, first + count) as a one-dimensional tensor. REQUIRES: whole bytes each.
  TensorInfo Part(int64_t first, int64_t count) const;
};

// One file, its header read and checked; tensor bytes are read on demand by ranged reads.
class SafetensorsFile {
 public:
  // Largest header accepted; the reference implementation's limit.
  static constexpr uint64_t kMaxHeaderBytes = 100 << 20;

  static absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Open(
      std::shared_ptr<ObjectStore> store, absl::string_view key);

  const std::string& key() const { return key_; }
  const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  absl::StatusOr<TensorInfo> Find(absl::string_view name) const;

  // The tensor's raw little-endian bytes, info.size_bytes of them, into the caller's `out`.
  absl::Status ReadBytes(const TensorInfo& info, void* out) const;
  // F32, F16, BF16 and the 8-bit floats F8_E4M3, F8_E5M2 and F8_E8M0 converted to float, exactly;
  // other dtypes are TENSOR_DTYPE errors.
  absl::Status ReadFloat(const TensorInfo& info, float* out) const;
  // Any integer dtype converted to int64; values that do not fit are TENSOR_DTYPE errors.
  absl::Status ReadInt64(const TensorInfo& info, int64_t* out) const;

 private:
  std::shared_ptr<ObjectStore> store_;
  std::string key_;
  std::map<std::string, TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
};

// `shape`'s elements × dtype in bytes; kInvalidArgument (TENSOR_SHAPE) for a negative dimension, a
// product of 2^60 bytes or more, or elements of less than a byte that fill no whole number of them.
absl::StatusOr<uint64_t> TensorBytes(SafetensorsDType dtype, const std::vector<int64_t>& shape);

// Writes a file in one pass, deterministically: the header is declared up front, tensors are laid
// out in the order declared, the header is padded with spaces to a multiple of 8 bytes.
class SafetensorsWriter {
 public:
  struct Declaration {
    std::string name;
    SafetensorsDType dtype;
    std::vector<int64_t> shape;
  };
  // Puts `tensors` in the reference implementation's order: larger element types first, then by
  // name. In this order every tensor is aligned to its element size, which some readers need.
  static void SortForAlignment(std::vector<Declaration>* tensors);

  // `out` is borrowed and must outlive the writer; the header is written at once. Errors:
  // kInvalidArgument (SAFETENSORS_BAD_HEADER) for an empty, repeated, reserved ("__metadata__") or
  // non-UTF-8 name, SAFETENSORS_HEADER_TOO_LARGE, TENSOR_SHAPE.
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(
      ObjectWriter* out, std::vector<Declaration> tensors,
      const std::map<std::string, std::string>& metadata);
  virtual ~SafetensorsWriter() = default;

  // Appends the bytes of the next declared tensor, possibly in several calls; kInvalidArgument when
  // `name` is not next or there are too many bytes.
  virtual absl::Status Append(absl::string_view name, const void* data, uint64_t size_bytes) = 0;
  // Checks that every declared byte was written. Does not commit `out`.
  virtual absl::Status Finish() = 0;
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_SAFETENSORS_SAFETENSORS_H_
