#include "worker/text/pieces.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "worker/text/tokenizer_file.h"

namespace uniquanf {
namespace {

// Joins a part with the one kept before it where `joins(part, previous was a match)`.
template <typename Joins>
void Fold(std::vector<PiecePart>* parts, Joins joins) {
  std::vector<PiecePart> kept;
  bool previous = false;
  for (const PiecePart& part : *parts) {
    if (!kept.empty() && joins(part.matched, previous)) {
      kept.back().start = std::min(kept.back().start, part.start);
      kept.back().end = std::max(kept.back().end, part.end);
    } else {
      kept.push_back(part);
    }
    previous = part.matched;
  }
  *parts = std::move(kept);
}

bool JoinsSplit(bool matched, bool previous) { return matched && !previous; }

}  // namespace

absl::StatusOr<SplitBehavior> ParseSplitBehavior(absl::string_view name) {
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return BadTokenizer(absl::StrCat("\"", name,
                                   "\" is no split behavior; there are Isolated, Removed, "
                                   "MergedWithPrevious, MergedWithNext and Contiguous"));
}

void ApplySplitBehavior(SplitBehavior behavior, std::vector<PiecePart>* parts) {
  switch (behavior) {
    case SplitBehavior::kIsolated:
      return;
    case SplitBehavior::kRemoved:
      parts->erase(std::remove_if(parts->begin(), parts->end(),
                                  [](const PiecePart& part) { return part.matched; }),
                   parts->end());
      return;
    case SplitBehavior::kMergedWithPrevious:
      return Fold(parts, JoinsSplit);
    case SplitBehavior::kMergedWithNext:
      std::reverse(parts->begin(), parts->end());
      Fold(parts, JoinsSplit);
      std::reverse(parts->begin(), parts->end());
      return;
    case SplitBehavior::kContiguous:
      return Fold(parts, [](bool matched, bool previous) { return matched == previous; });
  }
}

}  // namespace uniquanf
