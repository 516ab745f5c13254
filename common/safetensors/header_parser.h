// The JSON header of a safetensors file, parsed event by event: no tree is built, so that memory
// and stack stay bounded by the header's size whatever it holds. For reader.cc and its fuzz target.
// Thread safety: free function.
#ifndef UNIQUANF_COMMON_SAFETENSORS_HEADER_PARSER_H_
#define UNIQUANF_COMMON_SAFETENSORS_HEADER_PARSER_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/safetensors/safetensors.h"

namespace uniquanf {

struct SafetensorsHeader {
  std::map<std::string, TensorInfo> tensors;
  std::map<std::string, std::string> metadata;
};

// `json` is the header's text and `data_bytes` the number of bytes after it; TensorInfo::offset is
// given from the file's start. Checks names, dtypes, shapes, offsets and overlaps.
// Errors: kInvalidArgument with SAFETENSORS_BAD_HEADER, SAFETENSORS_BAD_OFFSETS, TENSOR_DTYPE.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json,
                                                         uint64_t data_bytes);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_SAFETENSORS_HEADER_PARSER_H_
