#include "worker/export/gguf_types.h"

#include <cmath>
#include <cstring>

#include "common/base/check.h"
#include "common/safetensors/float_conversion.h"

namespace uniquanf {
namespace {

void AppendHalf(uint16_t value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

std::string HalfRows(const PackedLinear& packed, Deviation* deviation) {
  const int64_t K = packed.num_inputs;
  std::string bytes;
  bytes.reserve(packed.num_outputs * K * 2);
  std::vector<float> values(K);
  for (int64_t row = 0; row < packed.num_outputs; ++row) {
    DequantizeRows(packed, row, row + 1, values.data());
    for (float value : values) {
      const uint16_t half = FloatToFloat16(value);
      const double error = std::abs(static_cast<double>(Float16ToFloat(half)) - value);
      deviation->max_error = std::max(deviation->max_error, error);
      deviation->sum_error += error;
      AppendHalf(half, &bytes);
    }
  }
  deviation->num_weights += packed.num_outputs * K;
  return bytes;
}

void AppendBlock(const GgufType& type, const uint8_t* codes, uint16_t scale, float minimum,
                 std::string* out) {
  AppendHalf(scale, out);
  if (type.offset == GridOffset::kMinimum) AppendHalf(FloatToFloat16(minimum), out);
  if (type.bits == 8) {
    for (int j = 0; j < kGgufBlock; ++j) out->push_back(static_cast<char>(codes[j] - 128));
    return;
  }
  if (type.bits == 5) {
    uint32_t fifth = 0;
    for (int j = 0; j < kGgufBlock; ++j) fifth |= static_cast<uint32_t>(codes[j] >> 4) << j;
    out->append(reinterpret_cast<const char*>(&fifth), sizeof(fifth));
  }
  for (int j = 0; j < kGgufBlock / 2; ++j) {
    out->push_back(static_cast<char>((codes[j] & 15) | (codes[j + kGgufBlock / 2] & 15) << 4));
  }
}

}  // namespace

std::string GgufBlocks(const PackedLinear& packed, const GgufType& type, Deviation* deviation) {
  if (type.bits == 16) return HalfRows(packed, deviation);
  UniformTarget target;
  target.bits = type.bits;
  target.group_size = kGgufBlock;
  target.offset = type.offset;
  const UniformLayer layer = ToUniform(packed, target, deviation);
  const int64_t num_blocks = packed.num_outputs * packed.num_inputs / kGgufBlock;
  std::string bytes;
  bytes.reserve(num_blocks * type.block_bytes);
  for (int64_t block = 0; block < num_blocks; ++block) {
    AppendBlock(type, &layer.codes[block * kGgufBlock], layer.scale[block], layer.offset[block],
                &bytes);
  }
  UQ_CHECK(static_cast<int64_t>(bytes.size()) == num_blocks * type.block_bytes);
  return bytes;
}

}  // namespace uniquanf
