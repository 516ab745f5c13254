#include "worker/task/tokens.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_join.h"
#include "common/base/status.h"
#include "common/object_store/object_store.h"
#include "common/safetensors/safetensors.h"

namespace uniquanf {
namespace {

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> OpenTokenFile(absl::string_view uri,
                                                                     const StoreOptions& options) {
  UQ_ASSIGN_OR_RETURN(const ObjectLocation location, OpenObjectLocation(uri, options));
  absl::StatusOr<std::shared_ptr<const SafetensorsFile>> file =
      SafetensorsFile::Open(location.store, location.key);
  if (!file.ok()) return Annotate(file.status(), absl::StrCat("token file ", uri));
  return file;
}

absl::StatusOr<TensorInfo> FindEntry(const SafetensorsFile& file, absl::string_view uri,
                                     absl::string_view entry, size_t rank) {
  const auto it = file.tensors().find(std::string(entry));
  if (it == file.tensors().end()) {
    std::vector<std::string> names;
    for (const auto& [name, info] : file.tensors()) names.push_back(name);
    return InvalidInput("TENSOR_NOT_FOUND",
                        absl::StrCat("token file ", uri, " has no tensor \"", entry,
                                     "\"; it has: ", absl::StrJoin(names, ", ")));
  }
  if (it->second.shape.size() != rank) {
    return InvalidInput(
        "TENSOR_SHAPE",
        absl::StrCat("tensor \"", entry, "\" of token file ", uri, " has shape [",
                     absl::StrJoin(it->second.shape, ", "), "]; it must have ", rank,
                     rank == 1 ? " dimension" : " dimensions [samples, tokens]"));
  }
  return it->second;
}

absl::StatusOr<std::vector<int32_t>> CheckedIds(const std::vector<int64_t>& raw, int64_t vocab_size,
                                                absl::string_view uri) {
  std::vector<int32_t> ids(raw.size());
  for (size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] < 0 || raw[i] >= vocab_size) {
      return InvalidInput("TOKEN_OUT_OF_RANGE",
                          absl::StrCat("token file ", uri, ": token id ", raw[i], " at position ",
                                       i, " is outside the model's vocabulary of ", vocab_size,
                                       "; was it made with another tokenizer?"));
    }
    ids[i] = static_cast<int32_t>(raw[i]);
  }
  return ids;
}

}  // namespace

absl::StatusOr<CalibrationTokens> ReadCalibrationTokens(absl::string_view uri, int64_t num_samples,
                                                        int64_t sequence_length, int64_t vocab_size,
                                                        const StoreOptions& options) {
  UQ_ASSIGN_OR_RETURN(const auto file, OpenTokenFile(uri, options));
  UQ_ASSIGN_OR_RETURN(const TensorInfo info, FindEntry(*file, uri, "input_ids", 2));
  const int64_t rows = info.shape[0], width = info.shape[1];
  if (rows < std::max<int64_t>(num_samples, 1)) {
    return InvalidInput(
        "TOO_FEW_SEQUENCES",
        absl::StrCat("token file ", uri, " has ", rows, " calibration sequences, but ", num_samples,
                     " are asked for; set --num-samples ", rows,
                     " (or 0 for all) or give a larger file"));
  }
  if (width < std::max<int64_t>(sequence_length, 1)) {
    return InvalidInput(
        "SEQUENCES_TOO_SHORT",
        absl::StrCat("token file ", uri, " has sequences of ", width, " tokens, but ",
                     sequence_length, " are asked for; set --sequence-length ", width,
                     " (or 0 for all) or give longer sequences"));
  }
  CalibrationTokens tokens;
  tokens.num_samples = num_samples == 0 ? rows : num_samples;
  tokens.sequence_length = sequence_length == 0 ? width : sequence_length;
  std::vector<int64_t> raw(info.num_elements());
  UQ_RETURN_IF_ERROR(file->ReadInt64(info, raw.data()));
  std::vector<int64_t> used;
  used.reserve(tokens.num_samples * tokens.sequence_length);
  for (int64_t row = 0; row < tokens.num_samples; ++row) {
    used.insert(used.end(), raw.begin() + row * width,
                raw.begin() + row * width + tokens.sequence_length);
  }
  UQ_ASSIGN_OR_RETURN(tokens.ids, CheckedIds(used, vocab_size, uri));
  return tokens;
}

absl::StatusOr<std::vector<int32_t>> ReadEvaluationTokens(absl::string_view uri,
                                                          absl::string_view entry,
                                                          int64_t min_tokens, int64_t max_tokens,
                                                          int64_t vocab_size,
                                                          const StoreOptions& options) {
  UQ_ASSIGN_OR_RETURN(const auto file, OpenTokenFile(uri, options));
  UQ_ASSIGN_OR_RETURN(const TensorInfo info, FindEntry(*file, uri, entry, 1));
  if (info.shape[0] < min_tokens) {
    return InvalidInput(
        "TOO_FEW_TOKENS",
        absl::StrCat("entry \"", entry, "\" of token file ", uri, " has ", info.shape[0],
                     " tokens; one evaluation window needs ", min_tokens));
  }
  std::vector<int64_t> raw(info.num_elements());
  UQ_RETURN_IF_ERROR(file->ReadInt64(info, raw.data()));
  if (max_tokens > 0 && static_cast<int64_t>(raw.size()) > max_tokens) raw.resize(max_tokens);
  return CheckedIds(raw, vocab_size, uri);
}

std::string TokensToBytes(const std::vector<int32_t>& ids) {
  return std::string(reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(int32_t));
}

std::vector<int32_t> TokensFromBytes(absl::string_view bytes) {
  std::vector<int32_t> ids(bytes.size() / sizeof(int32_t));
  std::memcpy(ids.data(), bytes.data(), ids.size() * sizeof(int32_t));
  return ids;
}

}  // namespace uniquanf
