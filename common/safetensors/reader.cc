#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/safetensors/header_parser.h"
#include "common/safetensors/safetensors.h"

namespace uniquanf {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

// Most headers arrive with the first read.
constexpr uint64_t kFirstReadBytes = 256 << 10;
// Conversions go through a buffer of this size, not through a copy of the tensor.
constexpr int64_t kChunkElements = 256 << 10;

absl::Status DTypeError(const TensorInfo& info, absl::string_view expected) {
  return InvalidInput("TENSOR_DTYPE",
                      absl::StrCat("tensor \"", info.name, "\" has dtype ",
                                   SafetensorsDTypeName(info.dtype), ", expected ", expected));
}

// Calls convert(chunk, first, count) for all elements of type T in order; stops at an error.
template <typename T, typename Convert>
absl::Status ReadConverted(ObjectStore* store, const std::string& key, const TensorInfo& info,
                           Convert convert) {
  const int64_t num_elements = info.num_elements();
  std::vector<T> chunk(std::min(num_elements, kChunkElements));
  for (int64_t first = 0; first < num_elements; first += kChunkElements) {
    const int64_t count = std::min(kChunkElements, num_elements - first);
    UQ_RETURN_IF_ERROR(store->ReadAt(key, info.offset + first * sizeof(T), count * sizeof(T),
                                     reinterpret_cast<char*>(chunk.data())));
    UQ_RETURN_IF_ERROR(convert(chunk.data(), first, count));
  }
  return absl::OkStatus();
}

template <typename T>
absl::Status ReadIntegers(ObjectStore* store, const std::string& key, const TensorInfo& info,
                          int64_t* out) {
  return ReadConverted<T>(
      store, key, info, [&](const T* chunk, int64_t first, int64_t count) -> absl::Status {
        for (int64_t i = 0; i < count; ++i) {
          if constexpr (std::is_same_v<T, uint64_t>) {
            if (chunk[i] > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
              return InvalidInput(
                  "TENSOR_DTYPE",
                  absl::StrCat("tensor \"", info.name, "\": element ", first + i, " is ", chunk[i],
                               ", beyond a signed 64-bit integer"));
            }
          }
          out[first + i] = static_cast<int64_t>(chunk[i]);
        }
        return absl::OkStatus();
      });
}

}  // namespace

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::Open(
    std::shared_ptr<ObjectStore> store, absl::string_view key) {
  const std::string name = absl::StrCat(store->uri(), "/", key);
  UQ_ASSIGN_OR_RETURN(const ObjectInfo object, store->Stat(key));
  if (object.size_bytes < 8) {
    return InvalidInput(
        "SAFETENSORS_TRUNCATED",
        absl::StrCat(name, " has ", object.size_bytes, " bytes; a safetensors file has 8 or more"));
  }
  std::string header(std::min(object.size_bytes, kFirstReadBytes), '\0');
  UQ_RETURN_IF_ERROR(store->ReadAt(key, 0, header.size(), header.data()));
  uint64_t header_bytes;
  std::memcpy(&header_bytes, header.data(), sizeof(header_bytes));
  if (header_bytes > kMaxHeaderBytes) {
    return InvalidInput("SAFETENSORS_HEADER_TOO_LARGE",
                        absl::StrCat(name, " declares a header of ", header_bytes,
                                     " bytes; at most ", kMaxHeaderBytes, " are allowed"));
  }
  if (header_bytes > object.size_bytes - 8) {
    return InvalidInput("SAFETENSORS_TRUNCATED",
                        absl::StrCat(name, " declares a header of ", header_bytes,
                                     " bytes, but has only ", object.size_bytes, " in all"));
  }
  header.erase(0, 8);
  const uint64_t have = std::min<uint64_t>(header.size(), header_bytes);
  header.resize(header_bytes);
  if (have < header_bytes) {
    UQ_RETURN_IF_ERROR(store->ReadAt(key, 8 + have, header_bytes - have, header.data() + have));
  }
  absl::StatusOr<SafetensorsHeader> parsed =
      ParseSafetensorsHeader(header, object.size_bytes - 8 - header_bytes);
  if (!parsed.ok()) return Annotate(parsed.status(), name);

  auto file = std::make_shared<SafetensorsFile>();
  file->store_ = std::move(store);
  file->key_ = std::string(key);
  file->tensors_ = std::move(parsed->tensors);
  file->metadata_ = std::move(parsed->metadata);
  return file;
}

absl::StatusOr<TensorInfo> SafetensorsFile::Find(absl::string_view name) const {
  const auto it = tensors_.find(std::string(name));
  if (it != tensors_.end()) return it->second;
  return InvalidInput("TENSOR_NOT_FOUND",
                      absl::StrCat(store_->uri(), "/", key_, " has no tensor \"", name, "\""));
}

absl::Status SafetensorsFile::ReadBytes(const TensorInfo& info, void* out) const {
  if (info.size_bytes == 0) return absl::OkStatus();
  return store_->ReadAt(key_, info.offset, info.size_bytes, static_cast<char*>(out));
}

absl::Status SafetensorsFile::ReadFloat(const TensorInfo& info, float* out) const {
  switch (info.dtype) {
    case SafetensorsDType::kF32:
      return ReadBytes(info, out);
    case SafetensorsDType::kF16:
      return ReadConverted<uint16_t>(store_.get(), key_, info,
                                     [&](const uint16_t* chunk, int64_t first, int64_t count) {
                                       for (int64_t i = 0; i < count; ++i) {
                                         out[first + i] = Float16ToFloat(chunk[i]);
                                       }
                                       return absl::OkStatus();
                                     });
    case SafetensorsDType::kBF16:
      return ReadConverted<uint16_t>(store_.get(), key_, info,
                                     [&](const uint16_t* chunk, int64_t first, int64_t count) {
                                       for (int64_t i = 0; i < count; ++i) {
                                         out[first + i] = Bfloat16ToFloat(chunk[i]);
                                       }
                                       return absl::OkStatus();
                                     });
    default:
      return DTypeError(info, "F32, F16 or BF16");
  }
}

absl::Status SafetensorsFile::ReadInt64(const TensorInfo& info, int64_t* out) const {
  ObjectStore* const store = store_.get();
  switch (info.dtype) {
    case SafetensorsDType::kU8:
      return ReadIntegers<uint8_t>(store, key_, info, out);
    case SafetensorsDType::kI8:
      return ReadIntegers<int8_t>(store, key_, info, out);
    case SafetensorsDType::kI16:
      return ReadIntegers<int16_t>(store, key_, info, out);
    case SafetensorsDType::kU16:
      return ReadIntegers<uint16_t>(store, key_, info, out);
    case SafetensorsDType::kI32:
      return ReadIntegers<int32_t>(store, key_, info, out);
    case SafetensorsDType::kU32:
      return ReadIntegers<uint32_t>(store, key_, info, out);
    case SafetensorsDType::kI64:
      return ReadBytes(info, out);
    case SafetensorsDType::kU64:
      return ReadIntegers<uint64_t>(store, key_, info, out);
    default:
      return DTypeError(info, "an integer type");
  }
}

}  // namespace uniquanf
