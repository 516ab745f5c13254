// Conversions between float and the 16-bit formats: round to nearest even, NaN kept (quiet); exact
// where the target can hold the value. And from the 8-bit formats, which float holds exactly.
// Thread-safe, no state.
#ifndef UNIQUANF_COMMON_SAFETENSORS_FLOAT_CONVERSION_H_
#define UNIQUANF_COMMON_SAFETENSORS_FLOAT_CONVERSION_H_

#include <bit>
#include <cstdint>

namespace uniquanf {

inline uint16_t FloatToBfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}
inline float Bfloat16ToFloat(uint16_t value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value) << 16);
}

// IEEE 754 binary16; overflow becomes infinity.
inline uint16_t FloatToFloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u);   // NaN
  if (magnitude >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);  // rounds to infinity
  if (magnitude < 0x38800000u) {  // subnormal or zero: let float addition do the rounding
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3F000000u));
  }
  const uint32_t rebased = magnitude - 0x38000000u;
  return static_cast<uint16_t>(sign | ((rebased + 0xFFFu + ((rebased >> 13) & 1u)) >> 13));
}
inline float Float16ToFloat(uint16_t value) {
  const uint32_t sign = static_cast<uint32_t>(value & 0x8000u) << 16;
  const uint32_t magnitude = value & 0x7FFFu;
  if (magnitude >= 0x7C00u)
    return std::bit_cast<float>(sign | 0x7F800000u | ((magnitude & 0x3FFu) << 13));
  if (magnitude < 0x0400u) {
    const float subnormal = static_cast<float>(magnitude) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(subnormal));
  }
  return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000u));
}

// OCP 8-bit floating point (revision 1.0). E4M3 has no infinities and one NaN of each sign, E5M2 is
// the upper half of a binary16.
inline float Float8E4m3ToFloat(uint8_t value) {
  const uint32_t sign = static_cast<uint32_t>(value & 0x80u) << 24;
  const uint32_t magnitude = value & 0x7Fu;
  if (magnitude == 0x7Fu) return std::bit_cast<float>(sign | 0x7FC00000u);
  if (magnitude < 0x08u) {
    const float subnormal = static_cast<float>(magnitude) * 0x1p-9f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(subnormal));
  }
  return std::bit_cast<float>(sign | ((magnitude << 20) + 0x3C000000u));
}
inline float Float8E5m2ToFloat(uint8_t value) {
  return Float16ToFloat(static_cast<uint16_t>(value << 8));
}
// A scale of the OCP microscaling formats (revision 1.0): 2^(value − 127), 255 is NaN.
inline float Float8E8m0ToFloat(uint8_t value) {
  if (value == 0xFFu) return std::bit_cast<float>(0x7FC00000u);
  if (value == 0) return 0x1p-127f;
  return std::bit_cast<float>(static_cast<uint32_t>(value) << 23);
}

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_SAFETENSORS_FLOAT_CONVERSION_H_
