// The uniform types of GGUF: blocks of 32 weights along the inputs, an fp16 scale d first.
// Little-endian; thread-safe. Source: the gguf specification and ggml's block structures.
//
//   Q4_0  d, 16 bytes: w = d·(q − 8); byte j holds q_j (low nibble) and q_{j+16}
//   Q4_1  d, m, 16 bytes: w = d·q + m
//   Q5_0  d, u32 of the fifth bits, 16 bytes: w = d·(q − 16)
//   Q5_1  d, m, u32, 16 bytes: w = d·q + m
//   Q8_0  d, 32 signed bytes: w = d·q
#ifndef UNIQUANF_WORKER_EXPORT_GGUF_TYPES_H_
#define UNIQUANF_WORKER_EXPORT_GGUF_TYPES_H_

#include <cstdint>
#include <string>

#include "worker/export/uniform_grid.h"

namespace uniquanf {

inline constexpr int64_t kGgufBlock = 32;

struct GgufType {
  const char* name;
  uint32_t id;         // ggml_type
  uint32_t file_type;  // general.file_type (LLAMA_FTYPE_MOSTLY_…)
  int bits;            // 16: F16
  GridOffset offset;
  int64_t block_bytes;  // of 32 weights
};
inline constexpr GgufType kGgufF32 = {"F32", 0, 0, 32, GridOffset::kMinimum, 128};
inline constexpr GgufType kGgufF16 = {"F16", 1, 1, 16, GridOffset::kMinimum, 64};
inline constexpr GgufType kGgufQ40 = {"Q4_0", 2, 2, 4, GridOffset::kCentered, 18};
inline constexpr GgufType kGgufQ41 = {"Q4_1", 3, 3, 4, GridOffset::kMinimum, 20};
inline constexpr GgufType kGgufQ50 = {"Q5_0", 6, 8, 5, GridOffset::kCentered, 22};
inline constexpr GgufType kGgufQ51 = {"Q5_1", 7, 9, 5, GridOffset::kMinimum, 24};
inline constexpr GgufType kGgufQ80 = {"Q8_0", 8, 7, 8, GridOffset::kCentered, 34};

// The layer's bytes, row after row. REQUIRES: type is F16, or one of the Q types with the layer's
// group size a multiple of 32.
std::string GgufBlocks(const PackedLinear& packed, const GgufType& type, Deviation* deviation);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_EXPORT_GGUF_TYPES_H_
