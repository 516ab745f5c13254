#include "worker/task/tokens.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/base/file_kind.h"
#include "common/base/status.h"
#include "common/object_store/open_data.h"
#include "common/safetensors/safetensors.h"
#include "worker/model/token_range.h"

namespace uniquanf {
namespace {

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> OpenTokenFile(absl::string_view uri,
                                                                     const DataOptions& options) {
  UQ_ASSIGN_OR_RETURN(const ObjectLocation location, OpenDataLocation(uri, options));
  absl::StatusOr<std::shared_ptr<const SafetensorsFile>> file =
      SafetensorsFile::Open(location.store, location.key);
  if (file.ok()) return file;
  // People give other files by mistake; their first bytes tell.
  absl::StatusOr<ObjectInfo> info = location.store->Stat(location.key);
  std::string first(info.ok() ? std::min<uint64_t>(info->size_bytes, 256) : 0, '\0');
  if (!first.empty() && location.store->ReadAt(location.key, 0, first.size(), first.data()).ok()) {
    const std::string what = DescribeFileKind(first);
    if (!what.empty() && what != "a safetensors file") {
      return InvalidInput("INVALID_TOKEN_FILE", absl::StrCat("token file ", uri, " is ", what));
    }
  }
  return Annotate(file.status(), absl::StrCat("token file ", uri));
}

// Padding is no text: a row with a position that attention_mask excludes would be optimized for
// what the model never sees.
absl::Status CheckAttentionMask(const SafetensorsFile& file, absl::string_view uri,
                                const TensorInfo& ids, int64_t rows, int64_t columns) {
  const auto it = file.tensors().find("attention_mask");
  if (it == file.tensors().end()) return absl::OkStatus();
  const TensorInfo& info = it->second;
  if (info.shape != ids.shape) {
    return InvalidInput("TENSOR_SHAPE",
                        absl::StrCat("token file ", uri, ": attention_mask has shape [",
                                     absl::StrJoin(info.shape, ", "), "], but input_ids has [",
                                     absl::StrJoin(ids.shape, ", "), "]"));
  }
  std::vector<int64_t> mask(info.num_elements());
  UQ_RETURN_IF_ERROR(file.ReadInt64(info, mask.data()));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      const int64_t value = mask[row * info.shape[1] + column];
      if (value == 1) continue;
      if (value != 0) {
        return InvalidInput("INVALID_ATTENTION_MASK",
                            absl::StrCat("token file ", uri, ": attention_mask[", row, ", ", column,
                                         "] = ", value, "; allowed: 0 and 1"));
      }
      return InvalidInput(
          "PADDED_SEQUENCES",
          absl::StrCat("token file ", uri, ": attention_mask[", row, ", ", column,
                       "] = 0, so that sequence ", row,
                       " is padded; calibration uses every token. "
                       "Concatenate the texts instead of padding them, leave short sequences out, "
                       "or set --sequence-length to the part without padding"));
    }
  }
  return absl::OkStatus();
}

// What other programs write beside the ids, and train with.
constexpr const char* kMeaningful[] = {"labels",        "loss_mask",   "position_ids",
                                       "sequence_ids",  "segment_ids", "special_tokens_mask",
                                       "token_type_ids"};

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
  const absl::Status checked = CheckTokens<int64_t>(raw, vocab_size);
  if (!checked.ok()) return Annotate(checked, absl::StrCat("token file ", uri));
  return std::vector<int32_t>(raw.begin(), raw.end());
}

}  // namespace

absl::StatusOr<CalibrationTokens> ReadCalibrationTokens(absl::string_view uri, int64_t num_samples,
                                                        int64_t sequence_length, int64_t vocab_size,
                                                        const DataOptions& options,
                                                        AtMost at_most) {
  UQ_ASSIGN_OR_RETURN(const auto file, OpenTokenFile(uri, options));
  UQ_ASSIGN_OR_RETURN(const TensorInfo info, FindEntry(*file, uri, "input_ids", 2));
  const int64_t rows = info.shape[0], width = info.shape[1];
  if (rows == 0 || width == 0) {
    return InvalidInput("EMPTY_TOKEN_FILE",
                        absl::StrCat("token file ", uri, ": input_ids has shape [", rows, ", ",
                                     width, "] and holds no token; make the file anew"));
  }
  if (at_most.num_samples) num_samples = std::min(num_samples, rows);
  if (at_most.sequence_length) sequence_length = std::min(sequence_length, width);
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
  UQ_RETURN_IF_ERROR(
      CheckAttentionMask(*file, uri, info, tokens.num_samples, tokens.sequence_length));
  for (const char* name : kMeaningful) {
    if (file->tensors().count(name) > 0) tokens.ignored.emplace_back(name);
  }
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
                                                          const DataOptions& options) {
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

bool IsTokenFile(absl::string_view uri) {
  absl::string_view name = uri;
  for (const char* suffix : {".gz", ".zst", ".zstd"}) name = absl::StripSuffix(name, suffix);
  for (const char* suffix : {".txt", ".text", ".md", ".json", ".jsonl", ".ndjson"}) {
    if (absl::EndsWith(name, suffix)) return false;
  }
  return name.size() == uri.size();
}

std::vector<std::string> CalibrationWarnings(const CalibrationTokens& tokens) {
  std::vector<std::string> warnings;
  if (!tokens.ignored.empty()) {
    warnings.push_back(absl::StrCat("the calibration file also holds ",
                                    absl::StrJoin(tokens.ignored, ", "),
                                    ", which are not used: every token counts, at its position in "
                                    "the row"));
  }
  std::set<absl::string_view> rows;
  std::map<int32_t, int64_t> counts;
  const int64_t length = tokens.sequence_length;
  for (int64_t row = 0; row < tokens.num_samples; ++row) {
    rows.insert(absl::string_view(reinterpret_cast<const char*>(tokens.ids.data() + row * length),
                                  length * sizeof(int32_t)));
  }
  const int64_t num_rows = static_cast<int64_t>(rows.size());
  if (num_rows < tokens.num_samples) {
    warnings.push_back(absl::StrCat("the calibration set repeats itself: of its ",
                                    tokens.num_samples, " sequences only ", num_rows,
                                    " differ; give more text"));
  }
  for (const int32_t id : tokens.ids) ++counts[id];
  const int64_t total = static_cast<int64_t>(tokens.ids.size());
  const auto most =
      std::max_element(counts.begin(), counts.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  if (most != counts.end() && total >= 16 && most->second > total / 2) {
    warnings.push_back(absl::StrCat(most->second * 100 / total,
                                    "% of the calibration tokens are the id ", most->first,
                                    "; is that padding? Leave it out"));
  }
  const int64_t num_distinct = static_cast<int64_t>(counts.size());
  if (total >= 4096 && num_distinct < 64) {
    warnings.push_back(absl::StrCat("the calibration set has only ", num_distinct,
                                    " distinct tokens among ", total, "; give real text"));
  }
  return warnings;
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
