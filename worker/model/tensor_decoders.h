// The decoders of dequantize.h. Internal to worker/model.
#ifndef UNIQUANF_WORKER_MODEL_TENSOR_DECODERS_H_
#define UNIQUANF_WORKER_MODEL_TENSOR_DECODERS_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "worker/model/source_tensor.h"

namespace uniquanf {

// Matrices [rows, columns], `count` of them one after the other, and numbers that some of their
// elements share: number [r / row_block, c / column_block] of a matrix of numbers, one for each of
// the matrices or one for all. A number's rows and columns are those that its tensor has.
struct SharedNumbers {
  SourceTensor tensor;
  int64_t rows = 1, columns = 1;
  int64_t row_block = 1, column_block = 1;
  bool one_for_all = false;  // the matrices share one matrix of numbers
  // Each row's or column's numbers are packed along the rows, as `packed_bits` wide unsigned
  // numbers in words of 32 bits, of which 2^(packed_bits − 1) is 0. 0: stored one by one.
  int packed_bits = 0;
};

struct ScaledMatrices {
  int64_t count = 1, rows = 0, columns = 0;
  // F8_E4M3, F8_E5M2 or I8; with packed_bits (2, 4 or 8) I32 words of numbers that wide along a
  // row, as in SharedNumbers.
  SourceTensor codes;
  int packed_bits = 0;
  SharedNumbers scales;
  std::optional<SharedNumbers> zero_points;
  // For each column its group; then the scales' column_block does not matter.
  std::optional<SourceTensor> column_groups;
};
std::shared_ptr<const TensorDecoder> NewScaledDecoder(ScaledMatrices matrices);

// gpt-oss: blocks U8 [experts, rows, columns / 32, 16], scales U8 [experts, rows, columns / 32];
// the tensor is [experts, columns, rows].
struct MicroscaledStack {
  int64_t experts = 0, rows = 0, columns = 0;
  SourceTensor blocks, scales;
};
std::shared_ptr<const TensorDecoder> NewMicroscaledDecoder(MicroscaledStack stack);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_TENSOR_DECODERS_H_
