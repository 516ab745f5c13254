#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/file_kind.h"
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

// The conversion is known where this is compiled, so that it is inlined.
template <typename T, float (*kToFloat)(T)>
absl::Status ReadFloats(ObjectStore* store, const std::string& key, const TensorInfo& info,
                        float* out) {
  return ReadConverted<T>(store, key, info, [&](const T* chunk, int64_t first, int64_t count) {
    for (int64_t i = 0; i < count; ++i) out[first + i] = kToFloat(chunk[i]);
    return absl::OkStatus();
  });
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

// What the file is instead, with what to do; "" when nothing is known of it.
std::string WhatElse(absl::string_view start) {
  std::string what = DescribeFileKind(start.substr(0, kFileKindBytes));
  if (what == "a safetensors file") return "";  // a damaged one
  if (!what.empty() || start.size() < 8) return what;
  const absl::string_view text = absl::StripLeadingAsciiWhitespace(start.substr(0, kFileKindBytes));
  if (!text.empty() && (text[0] == '{' || text[0] == '[')) return "a JSON file";
  const bool is_text = std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isprint(c) || absl::ascii_isspace(c);
  });
  return !text.empty() && is_text ? "a text file" : "";
}

// The header of the file `name`, which begins with `start`.
absl::Status CheckHeaderSize(const std::string& name, uint64_t file_bytes,
                             absl::string_view start) {
  const std::string what = WhatElse(start);
  uint64_t header_bytes = 0;
  if (file_bytes >= 8) std::memcpy(&header_bytes, start.data(), sizeof(header_bytes));
  const bool plausible = file_bytes >= 8 && header_bytes > 0 && header_bytes <= file_bytes - 8;
  if (!what.empty() && !plausible) {
    return InvalidInput("NOT_SAFETENSORS",
                        absl::StrCat(name, " is no safetensors file but ", what));
  }
  if (file_bytes < 8) {
    return InvalidInput(
        "SAFETENSORS_TRUNCATED",
        absl::StrCat(name, " has ", file_bytes, " bytes; a safetensors file has 8 or more"));
  }
  if (header_bytes > SafetensorsFile::kMaxHeaderBytes) {
    return InvalidInput(
        "SAFETENSORS_HEADER_TOO_LARGE",
        absl::StrCat(name, " declares a header of ", header_bytes, " bytes; at most ",
                     SafetensorsFile::kMaxHeaderBytes, " are allowed; is it a safetensors file?"));
  }
  if (header_bytes > file_bytes - 8) {
    return InvalidInput("SAFETENSORS_TRUNCATED",
                        absl::StrCat(name, " declares a header of ", header_bytes,
                                     " bytes, but has only ", file_bytes, " in all"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::Open(
    std::shared_ptr<ObjectStore> store, absl::string_view key) {
  const std::string name = absl::StrCat(store->uri(), "/", key);
  UQ_ASSIGN_OR_RETURN(const ObjectInfo object, store->Stat(key));
  std::string header(std::min(object.size_bytes, kFirstReadBytes), '\0');
  UQ_RETURN_IF_ERROR(store->ReadAt(key, 0, header.size(), header.data()));
  UQ_RETURN_IF_ERROR(CheckHeaderSize(name, object.size_bytes, header));
  uint64_t header_bytes;
  std::memcpy(&header_bytes, header.data(), sizeof(header_bytes));
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
      return ReadFloats<uint16_t, Float16ToFloat>(store_.get(), key_, info, out);
    case SafetensorsDType::kBF16:
      return ReadFloats<uint16_t, Bfloat16ToFloat>(store_.get(), key_, info, out);
    case SafetensorsDType::kF8E4M3:
      return ReadFloats<uint8_t, Float8E4m3ToFloat>(store_.get(), key_, info, out);
    case SafetensorsDType::kF8E5M2:
      return ReadFloats<uint8_t, Float8E5m2ToFloat>(store_.get(), key_, info, out);
    case SafetensorsDType::kF8E8M0:
      return ReadFloats<uint8_t, Float8E8m0ToFloat>(store_.get(), key_, info, out);
    default:
      return DTypeError(info, "F32, F16, BF16 or an 8-bit float");
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
