#include "worker/export/uniform_grid.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "common/base/check.h"
#include "common/base/parallel.h"
#include "common/safetensors/float_conversion.h"

namespace uniquanf {
namespace {

constexpr double kHalfUnit = 0x1p-10;  // of fp16, twice: a scale and a shift are rounded

// scale · q + minimum over q = 0 … 2^n − 1; scale 0 for a group of one value.
struct Grid {
  bool uniform = false;
  double scale = 0, minimum = 0;
};

Grid GridOf(const PackedLinear& packed, int64_t row, int64_t group) {
  const int n = packed.bits;
  double alpha[kMaxPackedBits];
  for (int i = 0; i < n; ++i) {
    alpha[i] = std::abs(Float16ToFloat(packed.alpha[(group * n + i) * packed.num_outputs + row]));
  }
  for (int i = 1; i < n; ++i) {  // ascending; a few numbers
    for (int j = i; j > 0 && alpha[j] < alpha[j - 1]; --j) std::swap(alpha[j], alpha[j - 1]);
  }
  Grid grid;
  grid.scale = 2 * alpha[0];
  grid.minimum = Float16ToFloat(packed.beta[group * packed.num_outputs + row]);
  grid.uniform = true;
  for (int i = 0; i < n; ++i) {
    grid.minimum -= alpha[i];
    if (std::abs(alpha[i] - std::ldexp(alpha[0], i)) > kHalfUnit * alpha[i]) grid.uniform = false;
  }
  return grid;
}

uint16_t ToHalf(double value) {
  return FloatToFloat16(static_cast<float>(std::clamp(value, -65504.0, 65504.0)));
}

// One group in the target's form.
struct Group {
  uint16_t scale = 0;
  float offset = 0;
  double Level(const UniformTarget& target, int code) const {
    const float s = Float16ToFloat(scale);
    return target.offset == GridOffset::kMinimum ? s * static_cast<float>(code) + offset
                                                 : s * (static_cast<float>(code) - offset);
  }
};

double LargestError(const UniformTarget& target, const Group& group, const float* values,
                    int64_t count, const uint8_t* codes) {
  double worst = 0;
  for (int64_t k = 0; k < count; ++k) {
    worst = std::max(worst, std::abs(group.Level(target, codes[k]) - values[k]));
  }
  return worst;
}

// The layer's own grid in the target's form, where that can hold it.
bool CarryOver(const Grid& grid, const UniformTarget& target, const float* values, int64_t count,
               Group* group, uint8_t* codes) {
  const int top = (1 << target.bits) - 1;
  if (!grid.uniform || grid.scale == 0) return false;
  int lowest = top, highest = 0;
  for (int64_t k = 0; k < count; ++k) {
    const auto code = static_cast<int>(std::lround((values[k] - grid.minimum) / grid.scale));
    if (code < 0 || code > top) return false;
    codes[k] = static_cast<uint8_t>(code);
    lowest = std::min(lowest, code), highest = std::max(highest, code);
  }
  group->scale = ToHalf(grid.scale);
  if (target.offset == GridOffset::kMinimum) {
    group->offset = Float16ToFloat(ToHalf(grid.minimum));
    return true;
  }
  const auto zero = static_cast<int>(std::lround(-grid.minimum / grid.scale));
  const int wanted = target.offset == GridOffset::kCentered
                         ? 1 << (target.bits - 1)
                         : std::clamp(zero, target.lowest_zero, top);
  const int shift = wanted - zero;  // moves codes and zero point together
  if (lowest + shift < 0 || highest + shift > top) return false;
  for (int64_t k = 0; k < count; ++k) codes[k] = static_cast<uint8_t>(codes[k] + shift);
  group->offset = static_cast<float>(wanted);
  return true;
}

// The nearest grid between the extremes.
void Round(const UniformTarget& target, const float* values, int64_t count, Group* group,
           uint8_t* codes) {
  const int top = (1 << target.bits) - 1, center = 1 << (target.bits - 1);
  const auto [low_value, high_value] = std::minmax_element(values, values + count);
  double low = *low_value, high = *high_value, scale = 0;
  if (target.offset != GridOffset::kMinimum) low = std::min(low, 0.0), high = std::max(high, 0.0);
  if (target.offset == GridOffset::kCentered) {
    scale = std::max(high / (top - center), -low / center);
  } else {
    scale = (high - low) / top;
  }
  group->scale = ToHalf(scale);
  const double stored = Float16ToFloat(group->scale);
  if (target.offset == GridOffset::kMinimum) {
    group->offset = Float16ToFloat(ToHalf(low));
  } else if (target.offset == GridOffset::kCentered) {
    group->offset = static_cast<float>(center);
  } else {
    group->offset = static_cast<float>(
        std::clamp<double>(stored > 0 ? std::round(-low / stored) : 0, target.lowest_zero, top));
  }
  for (int64_t k = 0; k < count; ++k) {
    double code = 0;
    if (stored > 0) {
      code = target.offset == GridOffset::kMinimum ? (values[k] - group->offset) / stored
                                                   : values[k] / stored + group->offset;
    } else if (target.offset != GridOffset::kMinimum) {
      code = group->offset;
    }
    codes[k] = static_cast<uint8_t>(std::clamp<double>(std::round(code), 0, top));
  }
}

}  // namespace

void Deviation::Merge(const Deviation& other) {
  max_error = std::max(max_error, other.max_error);
  sum_error += other.sum_error;
  num_weights += other.num_weights;
  within_rounding = within_rounding && other.within_rounding;
}

UniformLayer ToUniform(const PackedLinear& packed, const UniformTarget& target,
                       Deviation* deviation) {
  const int64_t N = packed.num_outputs, K = packed.num_inputs, g = target.group_size;
  UQ_CHECK(g > 0 && packed.group_size % g == 0);
  const int64_t groups = K / g;
  UniformLayer layer;
  layer.codes.resize(N * K);
  layer.scale.resize(N * groups);
  layer.offset.resize(N * groups);
  std::vector<Deviation> rows(N);  // summed in row order: the same bits for any number of threads
  ParallelRanges(N, 16, [&](int64_t first, int64_t end) {
    std::vector<float> values(K);
    std::vector<uint8_t> rounded(g);
    for (int64_t row = first; row < end; ++row) {
      DequantizeRows(packed, row, row + 1, values.data());
      for (int64_t j = 0; j < groups; ++j) {
        const float* v = values.data() + j * g;
        uint8_t* codes = layer.codes.data() + row * K + j * g;
        const Grid grid = GridOf(packed, row, j * g / packed.group_size);
        Group group;
        // A grid whose zero point is no whole number is carried over badly: rounding may be nearer.
        const bool carried = CarryOver(grid, target, v, g, &group, codes);
        Group nearest;
        Round(target, v, g, &nearest, rounded.data());
        if (!carried || LargestError(target, nearest, v, g, rounded.data()) <
                            LargestError(target, group, v, g, codes)) {
          group = nearest;
          std::copy(rounded.begin(), rounded.end(), codes);
        }
        layer.scale[row * groups + j] = group.scale;
        layer.offset[row * groups + j] = group.offset;
        double largest = 0, worst = 0;
        for (int64_t k = 0; k < g; ++k) {
          const double error = std::abs(group.Level(target, codes[k]) - v[k]);
          largest = std::max<double>(largest, std::abs(v[k]));
          worst = std::max(worst, error);
          rows[row].sum_error += error;
        }
        rows[row].max_error = std::max(rows[row].max_error, worst);
        if (worst > kHalfUnit * largest) rows[row].within_rounding = false;
      }
      rows[row].num_weights = K;
    }
  });
  for (const Deviation& row : rows) deviation->Merge(row);
  return layer;
}

int64_t CommonGroupSize(const Manifest& manifest) {
  int64_t common = 0;
  bool all_rows = true;
  for (const ManifestModule& module : manifest.modules) {
    if (!module.quantized) continue;
    common = std::gcd(common, module.group_size);
    all_rows = all_rows && module.group_size == module.num_inputs;
  }
  return all_rows ? 0 : common;
}

int MostBits(const Manifest& manifest) {
  int bits = 0;
  for (const ManifestModule& module : manifest.modules) {
    if (module.quantized) bits = std::max(bits, module.bits);
  }
  return bits;
}

void PackBits(const uint8_t* codes, int64_t code_stride, int64_t count, int bits, int32_t* words,
              int64_t stride) {
  uint64_t pending = 0;
  int filled = 0;
  for (int64_t i = 0; i < count; ++i) {
    pending |= static_cast<uint64_t>(codes[i * code_stride]) << filled;
    filled += bits;
    if (filled >= 32) {
      *words = static_cast<int32_t>(static_cast<uint32_t>(pending));
      words += stride;
      pending >>= 32;
      filled -= 32;
    }
  }
  if (filled > 0) *words = static_cast<int32_t>(static_cast<uint32_t>(pending));
}

}  // namespace uniquanf
