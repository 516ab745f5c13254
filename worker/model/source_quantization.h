// What config.json says about weights that a model was published with in fewer bits: the sections
// quantization_config and compression_config, at the top or inside text_config, as Hugging Face
// transformers, DeepSeek, gpt-oss, compressed-tensors and ModelOpt write them. Which tensors are
// quantized is seen in the tensors (dequantize.h): lists of modules that are not converted are
// spelled in five ways, and a tensor says it without any.
//
// Plain values, thread-safe. Errors: kInvalidArgument with reason MODEL_ALREADY_QUANTIZED for what
// cannot be dequantized (names the method and the fix), INVALID_MODEL_CONFIG for a malformed
// section.
#ifndef UNIQUANF_WORKER_MODEL_SOURCE_QUANTIZATION_H_
#define UNIQUANF_WORKER_MODEL_SOURCE_QUANTIZATION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/safetensors/safetensors.h"
#include "worker/model/config_fields.h"

namespace uniquanf {

struct SourceQuantization {
  // "fp8", "fbgemm_fp8", "modelopt", "mxfp4" or "compressed-tensors"; "": config.json has no
  // section.
  std::string method;
  // Shapes {rows, columns} of the blocks that may share a scale.
  struct Block {
    int64_t rows, columns;
  };
  std::vector<Block> blocks;
  // compressed-tensors: how weights may be quantized, one entry a group of modules.
  struct Scheme {
    bool is_float = false;
    int bits = 0;
    bool symmetric = true;
    int64_t group_size = 0;  // 0: a row or more shares a scale
  };
  std::vector<Scheme> schemes;
  // What the weights are rounded to where their scales do not say: config.json's dtype.
  SafetensorsDType dtype = SafetensorsDType::kBF16;
};

// `root`: the fields of config.json.
absl::StatusOr<SourceQuantization> ParseSourceQuantization(const Fields& root);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_SOURCE_QUANTIZATION_H_
