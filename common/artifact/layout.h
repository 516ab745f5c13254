// The stored form of a quantized linear layer (FORMAT.md, "Tensors"): bit planes as the LUT-GEMM
// and AnyBCQ kernels read them, and the way back to weights.
//
// Thread safety: free functions and plain values.
// Errors: kInvalidArgument (INVALID_ARTIFACT, TENSOR_*) for tensors that do not fit; Pack and
// Dequantize are given values of ours and CHECK their shapes.
#ifndef UNIQUANF_COMMON_ARTIFACT_LAYOUT_H_
#define UNIQUANF_COMMON_ARTIFACT_LAYOUT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/artifact/unified_linear.h"
#include "common/safetensors/safetensors.h"

namespace uniquanf {

inline constexpr int kMinPackedBits = 2;
inline constexpr int kMaxPackedBits = 8;

struct PackedLinear {
  int bits = 0;  // n
  int64_t num_outputs = 0, num_inputs = 0, group_size = 0;
  // [Kp/32, n, N], Kp = K rounded up to a multiple of 32: bit k%32 (least significant first) of
  // word k/32 of plane i is 1 where b_i = +1; bits beyond K are 0.
  std::vector<int32_t> qweight;
  std::vector<uint16_t> alpha;  // fp16 [Gr, n, N]
  std::vector<uint16_t> beta;   // fp16 [Gr, N]
  // Values beyond fp16's largest finite one (65504) that were stored as that. Not in the files.
  int64_t num_saturated = 0;

  int64_t groups_per_row() const { return num_inputs / group_size; }
  int64_t words_per_row() const { return (num_inputs + 31) / 32; }
};

// Rounds to fp16 (nearest even, saturating) and packs. REQUIRES: finite alpha and shift, shapes as
// UnifiedLinear states, codes below 2^n.
PackedLinear Pack(const UnifiedLinear& unified);

// The way back: what Pack would pack again to the same.
UnifiedLinear Unpack(const PackedLinear& packed);

// A scale factor or shift as Pack stores it.
float StoredScale(float value);

// out[N, K] = the weights as stored: per group all 2^n levels, summed in fp32 as
// ((±α_0) ± α_1 ...) + β, are tabulated; so every reader of these bytes computes the same bits.
void Dequantize(const PackedLinear& packed, float* out);
// The same for rows [first_row, end_row) alone: out[end_row − first_row, K].
void DequantizeRows(const PackedLinear& packed, int64_t first_row, int64_t end_row, float* out);

// The layer's tensors under the module's full name, in the order of the format:
// NAME.qweight, NAME.alpha_n, NAME.beta_n, NAME.q_bias (see FORMAT.md).
std::vector<SafetensorsWriter::Declaration> PackedTensors(absl::string_view module_name,
                                                          const PackedLinear& packed);
// The little-endian bytes of the tensor with this name out of PackedTensors; CHECKs that it is one.
std::string PackedTensorBytes(absl::string_view module_name, const PackedLinear& packed,
                              absl::string_view tensor_name);

// Reads the layer back out of a shard, checking dtypes and shapes and that alpha and beta are
// finite; the error names the tensor.
absl::StatusOr<PackedLinear> ReadPackedLinear(const SafetensorsFile& shard,
                                              absl::string_view module_name, int bits,
                                              int64_t num_outputs, int64_t num_inputs,
                                              int64_t group_size);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_ARTIFACT_LAYOUT_H_
