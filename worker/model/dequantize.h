// Quantized weights of a published model, seen as the tensors that they were made from.
//
// | stored | as | defined by |
// |---|---|---|
// | T F8_E4M3 or F8_E5M2 [.., N, K]; T_scale_inv, T_scales_inv or T_scale | T, value · scale |
// DeepSeek V3, transformers' finegrained_fp8, fbgemm, ModelOpt, compressed-tensors float-quantized
// | | T I8 [.., N, K]; T_scale, perhaps T_zero_point | T, (value − zero) · scale |
// compressed-tensors int-quantized | | M.weight_packed I32 [N, K·b/32], M.weight_shape,
// M.weight_scale, perhaps M.weight_zero_point and M.weight_g_idx | M.weight [N, K], (value − zero)
// · scale | compressed-tensors pack-quantized | | T_blocks U8 [E, N, K/32, 16], T_scales U8 [E, N,
// K/32] | T [E, K, N], E2M1 · 2^(scale − 127) | OCP microscaling 1.0, gpt-oss |
//
// A scale belongs to a tensor, a matrix of a stack, a row, a column, a group of columns of a row,
// or a block; which one its shape says, with the blocks of config.json. Products are rounded to
// float32, then to the scales' type where that is 16 bits wide, else to config.json's dtype (a
// 16-bit one unless that says float32).
//
// Errors: kInvalidArgument (INVALID_QUANTIZATION) names the tensors and what does not fit.
#ifndef UNIQUANF_WORKER_MODEL_DEQUANTIZE_H_
#define UNIQUANF_WORKER_MODEL_DEQUANTIZE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/artifact/manifest.h"
#include "worker/model/source_quantization.h"
#include "worker/model/source_tensor.h"

namespace uniquanf {

// Replaces quantized weights and their scales in `tensors` by tensors with decoders, and removes
// scales of activations and caches, which weights do not need. Returns what was done, by format.
absl::StatusOr<std::vector<ManifestDequantized>> DequantizeTensors(
    const SourceQuantization& quantization, TensorMap* tensors);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_DEQUANTIZE_H_
