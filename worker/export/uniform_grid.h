// A binary-coding layer on a uniform grid, w = scale · (q − zero) or scale · q + minimum, for the
// formats that know nothing else. Where the layer's levels are such a grid (α halves from plane to
// plane) its codes are carried over; where they are not, or the format cannot hold the zero point,
// the group is rounded to the nearest grid between its extremes, and the deviation says how far
// that is.
//
// Thread safety: free functions; work in parallel inside. Shapes: N outputs, K inputs, groups of
// target.group_size columns, which divides the layer's.
#ifndef UNIQUANF_WORKER_EXPORT_UNIFORM_GRID_H_
#define UNIQUANF_WORKER_EXPORT_UNIFORM_GRID_H_

#include <cstdint>
#include <vector>

#include "common/artifact/layout.h"
#include "worker/export/export_format.h"

namespace uniquanf {

enum class GridOffset {
  kZeroPoint,  // scale · (q − zero), zero an integer
  kCentered,   // the same with zero = 2^(bits − 1)
  kMinimum,    // scale · q + minimum, a real number rounded to fp16
};

struct UniformTarget {
  int bits = 0;
  int64_t group_size = 0;
  GridOffset offset = GridOffset::kZeroPoint;
  int lowest_zero = 0;  // kZeroPoint: some formats cannot say 0
};

struct UniformLayer {
  std::vector<uint8_t> codes;   // [N, K]
  std::vector<uint16_t> scale;  // fp16 [N, G]
  std::vector<float> offset;    // [N, G]: the zero point, or the minimum as rounded to fp16
};

UniformLayer ToUniform(const PackedLinear& packed, const UniformTarget& target,
                       Deviation* deviation);

// The largest group size that divides every quantized module's; 0 when all are whole rows, whose
// lengths may differ.
int64_t CommonGroupSize(const Manifest& manifest);
// The most bits of a quantized module.
int MostBits(const Manifest& manifest);

// `count` codes of `bits` bits as one little-endian stream of 32-bit words, appended at stride
// `stride`: word i goes to words[i · stride].
void PackBits(const uint8_t* codes, int64_t code_stride, int64_t count, int bits, int32_t* words,
              int64_t stride);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_EXPORT_UNIFORM_GRID_H_
