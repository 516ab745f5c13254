#include "worker/model/source_tensor.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/base/status.h"
#include "common/safetensors/float_conversion.h"

namespace uniquanf {
namespace {

// Values are converted so many at a time.
constexpr int64_t kChunkElements = 256 << 10;

void Round(SafetensorsDType dtype, int64_t count, float* values) {
  if (dtype == SafetensorsDType::kBF16) {
    for (int64_t i = 0; i < count; ++i) values[i] = Bfloat16ToFloat(FloatToBfloat16(values[i]));
  } else if (dtype == SafetensorsDType::kF16) {
    for (int64_t i = 0; i < count; ++i) values[i] = Float16ToFloat(FloatToFloat16(values[i]));
  }
}

}  // namespace

absl::Status SourceTensor::ReadFloats(int64_t begin, int64_t end, float* out) const {
  if (decoder == nullptr) return file->ReadFloat(info.Part(begin, end - begin), out);
  UQ_RETURN_IF_ERROR(decoder->Decode(begin, end, out));
  Round(info.dtype, end - begin, out);
  return absl::OkStatus();
}

absl::Status SourceTensor::ReadBytes(int64_t begin, int64_t end, char* out) const {
  if (decoder == nullptr) {
    const bool whole = begin == 0 && end == info.num_elements();
    return file->ReadBytes(whole ? info : info.Part(begin, end - begin), out);
  }
  if (info.dtype == SafetensorsDType::kF32) {
    return decoder->Decode(begin, end, reinterpret_cast<float*>(out));
  }
  // A tensor whose stored order is another one is decoded at once: each piece would read all of it.
  std::vector<float> values(end - begin);
  UQ_RETURN_IF_ERROR(decoder->Decode(begin, end, values.data()));
  const auto convert = info.dtype == SafetensorsDType::kBF16 ? FloatToBfloat16 : FloatToFloat16;
  std::vector<uint16_t> rounded(std::min<int64_t>(end - begin, kChunkElements));
  for (int64_t first = 0; first < end - begin; first += kChunkElements) {
    const int64_t count = std::min(kChunkElements, end - begin - first);
    for (int64_t i = 0; i < count; ++i) rounded[i] = convert(values[first + i]);
    std::memcpy(out + first * sizeof(uint16_t), rounded.data(), count * sizeof(uint16_t));
  }
  return absl::OkStatus();
}

}  // namespace uniquanf
