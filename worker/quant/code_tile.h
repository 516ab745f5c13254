// Codes and s2 of a tile (group_math.h) on the CPU, wherever the codes lie: in an array of their
// own, or in the lowest bits of s2 (compact_state.h). Internal to worker/quant. Thread-safe for
// disjoint tiles.
#ifndef UNIQUANF_WORKER_QUANT_CODE_TILE_H_
#define UNIQUANF_WORKER_QUANT_CODE_TILE_H_

#include <algorithm>
#include <bit>
#include <cstdint>

#include "worker/quant/compact_state.h"
#include "worker/quant/group_math.h"
#include "worker/quant/quantizer.h"

namespace uniquanf::quant {

// The code of weight k, of all [N, K].
UQ_INLINE uint8_t CodeAt(const QuantizerState& s, int64_t k) {
  if (!s.packs_codes()) return s.codes.u8()[k];
  return static_cast<uint8_t>(static_cast<const uint32_t*>(s.log_scale_weight.data())[k] &
                              CodeMask(s.bits));
}

UQ_INLINE uint8_t CodeAt(const StoredCodes& s, int64_t k) {
  if (s.codes->dtype() == DType::kUint8) return s.codes->u8()[k];
  return static_cast<uint8_t>(static_cast<const uint32_t*>(s.codes->data())[k] & CodeMask(s.bits));
}

// Of weights [begin, begin + count), count at most kTile, padded with zeros to whole lanes.
struct CodeTile {
  const float* s2;
  const uint8_t* codes;
  float s2_buffer[kTile];
  uint8_t code_buffer[kTile];

  UQ_INLINE void Load(const QuantizerState& s, int64_t begin, int count) {
    if (!s.packs_codes()) {
      s2 = PadToLanes(s.log_scale_weight.f32() + begin, count, s2_buffer);
      codes = PadToLanes(s.codes.u8() + begin, count, code_buffer);
      return;
    }
    const auto* packed = static_cast<const uint32_t*>(s.log_scale_weight.data()) + begin;
    const uint32_t mask = CodeMask(s.bits);
    for (int k = 0; k < count; ++k) {
      s2_buffer[k] = std::bit_cast<float>(packed[k] & ~mask);
      code_buffer[k] = static_cast<uint8_t>(packed[k] & mask);
    }
    const int64_t padded = RoundUpToLanes(count);
    std::fill(s2_buffer + count, s2_buffer + padded, 0.0f);
    std::fill(code_buffer + count, code_buffer + padded, uint8_t{0});
    s2 = s2_buffer;
    codes = code_buffer;
  }
};

UQ_INLINE void StoreCodes(const uint32_t* __restrict codes, int64_t begin, int count,
                          QuantizerState* s) {
  if (!s->packs_codes()) {
    uint8_t* __restrict to = s->codes.u8() + begin;
    for (int k = 0; k < count; ++k) to[k] = static_cast<uint8_t>(codes[k]);
    return;
  }
  auto* __restrict to = static_cast<uint32_t*>(s->log_scale_weight.data()) + begin;
  const uint32_t mask = CodeMask(s->bits);
  for (int k = 0; k < count; ++k) to[k] = (to[k] & ~mask) | codes[k];
}

}  // namespace uniquanf::quant

#endif  // UNIQUANF_WORKER_QUANT_CODE_TILE_H_
