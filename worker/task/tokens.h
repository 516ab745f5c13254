// Token files: safetensors with integer tensors, as calibration (`input_ids` [S, L]) and evaluation
// (any name, [M]) data.
//
// Errors: kInvalidArgument with reason TENSOR_NOT_FOUND (lists the entries there are),
// TENSOR_SHAPE, TOKEN_OUT_OF_RANGE, TOO_FEW_SEQUENCES, SEQUENCES_TOO_SHORT, TOO_FEW_TOKENS,
// EMPTY_TOKEN_FILE, PADDED_SEQUENCES and INVALID_ATTENTION_MASK (an attention_mask of the file),
// INVALID_TOKEN_FILE (a file of a known other kind).
#ifndef UNIQUANF_WORKER_TASK_TOKENS_H_
#define UNIQUANF_WORKER_TASK_TOKENS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/object_store/open_data.h"

namespace uniquanf {

struct CalibrationTokens {
  int64_t num_samples = 0;
  int64_t sequence_length = 0;
  std::vector<int32_t> ids;  // [num_samples, sequence_length]
  // Other tensors of the file that mean something for the sequences, and that nothing here reads.
  std::vector<std::string> ignored;
};
// Whether a number of sequences, or their length, is a bound: what the file has of it will do.
struct AtMost {
  bool num_samples = false, sequence_length = false;
};
// The first `num_samples` rows (0: all) cut to the first `sequence_length` columns (0: all).
absl::StatusOr<CalibrationTokens> ReadCalibrationTokens(absl::string_view uri, int64_t num_samples,
                                                        int64_t sequence_length, int64_t vocab_size,
                                                        const DataOptions& options = {},
                                                        AtMost at_most = {});
// The whole one-dimensional entry; at most `max_tokens` of it when that is positive.
absl::StatusOr<std::vector<int32_t>> ReadEvaluationTokens(absl::string_view uri,
                                                          absl::string_view entry,
                                                          int64_t min_tokens, int64_t max_tokens,
                                                          int64_t vocab_size,
                                                          const DataOptions& options = {});
// Whether a file is one of tokens: all but those whose names say text (.txt, .jsonl, .json, …, also
// with .gz or .zst behind).
bool IsTokenFile(absl::string_view uri);
// What is odd about a calibration set, in words for the user: equal sequences, few distinct tokens,
// one token that fills it, tensors that were ignored.
std::vector<std::string> CalibrationWarnings(const CalibrationTokens& tokens);
// The most that a tokens object may hold, in bytes.
inline constexpr uint64_t kMaxTokenBytes = uint64_t{1} << 34;
// int32 little-endian, as stored in a job's working objects.
std::string TokensToBytes(const std::vector<int32_t>& ids);
std::vector<int32_t> TokensFromBytes(absl::string_view bytes);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_TOKENS_H_
