// Cutting text: what is found in a piece, and what becomes of it. The splitting of tokenizer.json's
// pre-tokenizers.
//
// Thread safety: plain values.
#ifndef UNIQUANF_WORKER_TEXT_PIECES_H_
#define UNIQUANF_WORKER_TEXT_PIECES_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace uniquanf {

enum class SplitBehavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };
absl::StatusOr<SplitBehavior> ParseSplitBehavior(absl::string_view name);

// A part of a piece, in bytes; `matched`: the pattern's, else the text between matches.
struct PiecePart {
  size_t start, end;
  bool matched;
};
// Joins and drops `parts`, which cover the piece in order, as `behavior` says. What remains has no
// meaning in `matched`.
void ApplySplitBehavior(SplitBehavior behavior, std::vector<PiecePart>* parts);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TEXT_PIECES_H_
