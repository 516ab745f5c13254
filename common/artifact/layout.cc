#include "common/artifact/layout.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/base/check.h"
#include "common/base/parallel.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr float kMaxFloat16 = 65504.0f;

uint16_t RoundSaturating(float value, int64_t* num_saturated) {
  UQ_CHECK(std::isfinite(value));
  const uint16_t rounded = FloatToFloat16(value);
  if ((rounded & 0x7FFFu) < 0x7C00u) return rounded;
  ++*num_saturated;
  return FloatToFloat16(std::copysign(kMaxFloat16, value));
}

bool ShapeIsValid(int bits, int64_t num_outputs, int64_t num_inputs, int64_t group_size) {
  constexpr int64_t kMaxWidth = int64_t{1} << 40;  // keeps products of ours far from overflow
  return bits >= kMinPackedBits && bits <= kMaxPackedBits && num_outputs > 0 && num_inputs > 0 &&
         num_outputs <= kMaxWidth && num_inputs <= kMaxWidth && group_size > 0 &&
         num_inputs % group_size == 0;
}

// The first tensor's values with this dtype and shape, or an error that names it.
template <typename T>
absl::StatusOr<std::vector<T>> ReadTensor(const SafetensorsFile& shard, const std::string& name,
                                          SafetensorsDType dtype,
                                          const std::vector<int64_t>& shape) {
  UQ_ASSIGN_OR_RETURN(const TensorInfo info, shard.Find(name));
  if (info.dtype != dtype) {
    return InvalidInput("TENSOR_DTYPE", absl::StrCat("tensor \"", name, "\" has dtype ",
                                                     SafetensorsDTypeName(info.dtype),
                                                     ", expected ", SafetensorsDTypeName(dtype)));
  }
  if (info.shape != shape) {
    return InvalidInput(
        "TENSOR_SHAPE",
        absl::StrCat("tensor \"", name, "\" has shape [", absl::StrJoin(info.shape, ", "),
                     "], expected [", absl::StrJoin(shape, ", "), "]"));
  }
  std::vector<T> values(info.num_elements());
  UQ_RETURN_IF_ERROR(shard.ReadBytes(info, values.data()));
  return values;
}

absl::Status CheckFinite(const std::string& name, const std::vector<uint16_t>& values) {
  for (size_t i = 0; i < values.size(); ++i) {
    if ((values[i] & 0x7C00u) == 0x7C00u) {
      return InvalidInput("INVALID_ARTIFACT", absl::StrCat("tensor \"", name, "\", element ", i,
                                                           " is not a finite number"));
    }
  }
  return absl::OkStatus();
}

template <typename T>
std::string ToBytes(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

// Rows in one piece of parallel work: neighbours in qweight, so that threads write whole cache
// lines.
constexpr int64_t kRowsPerPiece = 64;

void PackCodes(const UnifiedLinear& unified, int64_t first_row, int64_t end_row,
               PackedLinear* packed) {
  const int n = unified.bits;
  const int64_t N = unified.num_outputs, K = unified.num_inputs;
  for (int64_t word = 0; word < packed->words_per_row(); ++word) {
    const int64_t end = std::min<int64_t>(32, K - word * 32);
    for (int64_t row = first_row; row < end_row; ++row) {
      const uint8_t* codes = unified.codes.data() + row * K + word * 32;
      uint32_t planes[kMaxPackedBits] = {};
      for (int64_t k = 0; k < end; ++k) {
        UQ_CHECK((codes[k] >> n) == 0);
        // Inverted, since a code's bit 0 means b = +1, which is stored as 1.
        const uint32_t positive = ~static_cast<uint32_t>(codes[k]);
        for (int i = 0; i < n; ++i) planes[i] |= ((positive >> (n - 1 - i)) & 1u) << k;
      }
      for (int i = 0; i < n; ++i) {
        packed->qweight[(word * n + i) * N + row] = static_cast<int32_t>(planes[i]);
      }
    }
  }
}

// Returns how many values were saturated.
int64_t PackScales(const UnifiedLinear& unified, int64_t first_row, int64_t end_row,
                   PackedLinear* packed) {
  const int n = unified.bits;
  const int64_t N = unified.num_outputs, groups = packed->groups_per_row();
  int64_t num_saturated = 0;
  for (int64_t row = first_row; row < end_row; ++row) {
    for (int64_t group = 0; group < groups; ++group) {
      for (int i = 0; i < n; ++i) {
        packed->alpha[(group * n + i) * N + row] =
            RoundSaturating(unified.alpha[(row * groups + group) * n + i], &num_saturated);
      }
      packed->beta[group * N + row] =
          RoundSaturating(unified.shift[row * groups + group], &num_saturated);
    }
  }
  return num_saturated;
}

}  // namespace

float StoredScale(float value) {
  int64_t num_saturated = 0;
  return Float16ToFloat(RoundSaturating(value, &num_saturated));
}

PackedLinear Pack(const UnifiedLinear& unified) {
  const int n = unified.bits;
  const int64_t N = unified.num_outputs, K = unified.num_inputs;
  UQ_CHECK(ShapeIsValid(n, N, K, unified.group_size));
  PackedLinear packed;
  packed.bits = n;
  packed.num_outputs = N;
  packed.num_inputs = K;
  packed.group_size = unified.group_size;
  const int64_t groups = packed.groups_per_row(), words = packed.words_per_row();
  UQ_CHECK(static_cast<int64_t>(unified.codes.size()) == N * K);
  UQ_CHECK(static_cast<int64_t>(unified.alpha.size()) == N * groups * n);
  UQ_CHECK(static_cast<int64_t>(unified.shift.size()) == N * groups);

  packed.qweight.assign(words * n * N, 0);
  packed.alpha.resize(groups * n * N);
  packed.beta.resize(groups * N);
  std::atomic<int64_t> num_saturated{0};
  ParallelRanges(N, kRowsPerPiece, [&](int64_t first_row, int64_t end_row) {
    PackCodes(unified, first_row, end_row, &packed);
    num_saturated += PackScales(unified, first_row, end_row, &packed);
  });
  packed.num_saturated = num_saturated;
  return packed;
}

UnifiedLinear Unpack(const PackedLinear& packed) {
  const int n = packed.bits;
  const int64_t N = packed.num_outputs, K = packed.num_inputs, groups = packed.groups_per_row();
  UnifiedLinear unified;
  unified.bits = n;
  unified.num_outputs = N;
  unified.num_inputs = K;
  unified.group_size = packed.group_size;
  unified.codes.resize(N * K);
  unified.alpha.resize(N * groups * n);
  unified.shift.resize(N * groups);
  ParallelRanges(N, kRowsPerPiece, [&](int64_t first_row, int64_t end_row) {
    for (int64_t row = first_row; row < end_row; ++row) {
      for (int64_t k = 0; k < K; ++k) {
        unsigned code = 0;
        for (int i = 0; i < n; ++i) {
          const auto plane = static_cast<uint32_t>(packed.qweight[(k / 32 * n + i) * N + row]);
          code = code << 1 | (~(plane >> (k % 32)) & 1u);
        }
        unified.codes[row * K + k] = static_cast<uint8_t>(code);
      }
      for (int64_t group = 0; group < groups; ++group) {
        const int64_t at = row * groups + group;
        for (int i = 0; i < n; ++i) {
          unified.alpha[at * n + i] = Float16ToFloat(packed.alpha[(group * n + i) * N + row]);
        }
        unified.shift[at] = Float16ToFloat(packed.beta[group * N + row]);
      }
    }
  });
  return unified;
}

void DequantizeRows(const PackedLinear& packed, int64_t first_row, int64_t end_row, float* out) {
  const int n = packed.bits;
  const int64_t N = packed.num_outputs, K = packed.num_inputs, g = packed.group_size;
  const int64_t groups = packed.groups_per_row();
  UQ_CHECK(0 <= first_row && first_row <= end_row && end_row <= N);
  float levels[1 << kMaxPackedBits];
  for (int64_t row = first_row; row < end_row; ++row) {
    uint32_t planes[kMaxPackedBits] = {};
    int64_t loaded_word = -1;
    for (int64_t group = 0; group < groups; ++group) {
      // levels[signs]: bit i of `signs` is plane i's. Built by doubling, so that every level is
      // summed in plane order.
      levels[0] = 0.0f;
      for (int i = 0; i < n; ++i) {
        const float alpha = Float16ToFloat(packed.alpha[(group * n + i) * N + row]);
        for (int s = 0; s < (1 << i); ++s) {
          const float sum = levels[s];
          levels[s] = i == 0 ? -alpha : sum - alpha;
          levels[s | (1 << i)] = i == 0 ? alpha : sum + alpha;
        }
      }
      const float beta = Float16ToFloat(packed.beta[group * N + row]);
      for (int s = 0; s < (1 << n); ++s) levels[s] += beta;

      for (int64_t k = group * g; k < (group + 1) * g; ++k) {
        if (k / 32 != loaded_word) {
          loaded_word = k / 32;
          for (int i = 0; i < n; ++i) {
            planes[i] = static_cast<uint32_t>(packed.qweight[(loaded_word * n + i) * N + row]);
          }
        }
        uint32_t signs = 0;
        for (int i = 0; i < n; ++i) signs |= ((planes[i] >> (k % 32)) & 1u) << i;
        out[(row - first_row) * K + k] = levels[signs];
      }
    }
  }
}

void Dequantize(const PackedLinear& packed, float* out) {
  const int n = packed.bits;
  const int64_t N = packed.num_outputs, K = packed.num_inputs, g = packed.group_size;
  UQ_CHECK(ShapeIsValid(n, N, K, g));
  const int64_t groups = packed.groups_per_row(), words = packed.words_per_row();
  UQ_CHECK(static_cast<int64_t>(packed.qweight.size()) == words * n * N);
  UQ_CHECK(static_cast<int64_t>(packed.alpha.size()) == groups * n * N);
  UQ_CHECK(static_cast<int64_t>(packed.beta.size()) == groups * N);

  ParallelRanges(N, kRowsPerPiece, [&](int64_t first_row, int64_t end_row) {
    DequantizeRows(packed, first_row, end_row, out + first_row * packed.num_inputs);
  });
}

std::vector<SafetensorsWriter::Declaration> PackedTensors(absl::string_view module_name,
                                                          const PackedLinear& packed) {
  const int64_t n = packed.bits, N = packed.num_outputs, groups = packed.groups_per_row();
  return {
      {absl::StrCat(module_name, ".qweight"),
       SafetensorsDType::kI32,
       {packed.words_per_row(), n, N}},
      {absl::StrCat(module_name, ".alpha_", n), SafetensorsDType::kF16, {groups, n, N}},
      {absl::StrCat(module_name, ".beta_", n), SafetensorsDType::kF16, {groups, N}},
      {absl::StrCat(module_name, ".q_bias"), SafetensorsDType::kF16, {groups, N}},
  };
}

std::string PackedTensorBytes(absl::string_view module_name, const PackedLinear& packed,
                              absl::string_view tensor_name) {
  UQ_CHECK(absl::ConsumePrefix(&tensor_name, module_name));
  if (tensor_name == ".qweight") return ToBytes(packed.qweight);
  if (tensor_name == absl::StrCat(".alpha_", packed.bits)) return ToBytes(packed.alpha);
  if (tensor_name == absl::StrCat(".beta_", packed.bits)) return ToBytes(packed.beta);
  UQ_CHECK(tensor_name == ".q_bias");
  return std::string(packed.beta.size() * sizeof(uint16_t), '\0');
}

absl::StatusOr<PackedLinear> ReadPackedLinear(const SafetensorsFile& shard,
                                              absl::string_view module_name, int bits,
                                              int64_t num_outputs, int64_t num_inputs,
                                              int64_t group_size) {
  if (!ShapeIsValid(bits, num_outputs, num_inputs, group_size)) {
    return InvalidInput(
        "INVALID_ARTIFACT",
        absl::StrCat("module ", module_name, ": ", bits, " bits, ", num_outputs, " x ", num_inputs,
                     " weights in groups of ", group_size, " is no possible layer"));
  }
  PackedLinear packed;
  packed.bits = bits;
  packed.num_outputs = num_outputs;
  packed.num_inputs = num_inputs;
  packed.group_size = group_size;
  const std::vector<SafetensorsWriter::Declaration> tensors = PackedTensors(module_name, packed);
  UQ_ASSIGN_OR_RETURN(packed.qweight, ReadTensor<int32_t>(shard, tensors[0].name, tensors[0].dtype,
                                                          tensors[0].shape));
  UQ_ASSIGN_OR_RETURN(packed.alpha, ReadTensor<uint16_t>(shard, tensors[1].name, tensors[1].dtype,
                                                         tensors[1].shape));
  UQ_ASSIGN_OR_RETURN(packed.beta, ReadTensor<uint16_t>(shard, tensors[2].name, tensors[2].dtype,
                                                        tensors[2].shape));
  UQ_RETURN_IF_ERROR(CheckFinite(tensors[1].name, packed.alpha));
  UQ_RETURN_IF_ERROR(CheckFinite(tensors[2].name, packed.beta));
  return packed;
}

}  // namespace uniquanf
