// A tensor of a checkpoint as the engine sees it: stored as it is, or stored in fewer bits and
// dequantized while it is read. Everything that reads or copies weights does it through this.
//
// Thread safety: immutable, loads may run in several threads. Errors: those of safetensors, and
// INVALID_QUANTIZATION of a decoder (dequantize.h).
#ifndef UNIQUANF_WORKER_MODEL_SOURCE_TENSOR_H_
#define UNIQUANF_WORKER_MODEL_SOURCE_TENSOR_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "common/safetensors/safetensors.h"

namespace uniquanf {

// Reads a tensor that is stored in fewer bits. Immutable and thread-safe.
class TensorDecoder {
 public:
  virtual ~TensorDecoder() = default;
  // The elements [begin, end), in the order of the tensor's shape, as the format defines them: not
  // yet rounded to its type. Holds no more than a part of the stored tensors in memory.
  virtual absl::Status Decode(int64_t begin, int64_t end, float* out) const = 0;
};

struct SourceTensor {
  std::shared_ptr<const SafetensorsFile> file;
  // What the tensor is for everybody else. With a decoder: its type is F32, F16 or BF16, and where
  // it lies in the file means nothing.
  TensorInfo info;
  std::shared_ptr<const TensorDecoder> decoder = nullptr;  // null: stored as it is
  uint64_t stored_bytes = 0;  // of all that a decoder reads; 0 without one

  // What the checkpoint holds for it.
  uint64_t size_on_disk() const { return decoder != nullptr ? stored_bytes : info.size_bytes; }
  // The elements [begin, end) as floats. REQUIRES: F32, F16 or BF16.
  absl::Status ReadFloats(int64_t begin, int64_t end, float* out) const;
  // The same as bytes of the tensor's type, of whatever type it is; with elements of less than a
  // byte only the whole tensor.
  absl::Status ReadBytes(int64_t begin, int64_t end, char* out) const;
};

using TensorMap = std::map<std::string, SourceTensor>;

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_SOURCE_TENSOR_H_
