#include "worker/text/bpe.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "common/base/status.h"
#include "worker/text/unicode.h"

namespace uniquanf {
namespace {

constexpr size_t kMaxCachedPiece = 256;
constexpr size_t kMaxCachedPieces = 400'000;
constexpr absl::string_view kWordStart = "\xE2\x96\x81";  // ▁

uint64_t PairKey(uint32_t left, uint32_t right) {
  return static_cast<uint64_t>(left) << 32 | right;
}

}  // namespace

absl::Status BpeModel::ReadSettings(const nlohmann::json& model) {
  absl::Status status;
  continuing_prefix_ = StringOr(model, "continuing_subword_prefix", "", &status);
  word_suffix_ = StringOr(model, "end_of_word_suffix", "", &status);
  const auto unk = model.find("unk_token");
  has_unk_ = unk != model.end() && !unk->is_null();
  unk_token_ = StringOr(model, "unk_token", "", &status);
  fuse_unk_ = BoolOr(model, "fuse_unk", false, &status);
  byte_fallback_ = BoolOr(model, "byte_fallback", false, &status);
  ignore_merges_ = BoolOr(model, "ignore_merges", false, &status);
  UQ_RETURN_IF_ERROR(status);
  const auto dropout = model.find("dropout");
  if (dropout != model.end() && !dropout->is_null() &&
      !(dropout->is_number() && dropout->get<double>() == 0)) {
    return UnsupportedTokenizer("its model drops merges at random (dropout)");
  }
  return absl::OkStatus();
}

absl::Status BpeModel::AddVocab(TokenizerFile* file) {
  uint32_t max_id = 0;
  for (const auto& [token, id] : file->vocab) max_id = std::max(max_id, id);
  tokens_.resize(file->vocab.empty() ? 0 : max_id + 1);
  ids_.reserve(file->vocab.size());
  for (auto& [token, id] : file->vocab) {
    if (tokens_[id] != nullptr) {
      return BadTokenizer(absl::StrCat("the vocabulary gives the id ", id, " twice: to \"",
                                       tokens_[id]->substr(0, 100), "\" and \"",
                                       token.substr(0, 100), "\""));
    }
    tokens_[id] = std::make_unique<const std::string>(std::move(token));
    if (!ids_.emplace(*tokens_[id], id).second) {
      return BadTokenizer(
          absl::StrCat("the vocabulary has \"", tokens_[id]->substr(0, 100), "\" twice"));
    }
  }
  file->vocab.clear();
  for (int byte = 0; byte < 256; ++byte) byte_ids_[byte] = Find(absl::StrFormat("<0x%02X>", byte));
  if (has_unk_) {
    const int64_t id = Find(unk_token_);
    // Used only where a character is unknown; the reference fails there.
    has_unk_ = id >= 0;
    unk_id_ = has_unk_ ? static_cast<uint32_t>(id) : 0;
  }
  return absl::OkStatus();
}

absl::Status BpeModel::AddMerges(const TokenizerFile& file) {
  merges_.reserve(file.merges.size());
  std::string joined;
  for (size_t rank = 0; rank < file.merges.size(); ++rank) {
    const auto& [left, right] = file.merges[rank];
    joined = left;
    if (right.size() < continuing_prefix_.size()) {
      return BadTokenizer(absl::StrCat("merge ", rank, " lacks the continuing prefix"));
    }
    joined.append(right, continuing_prefix_.size());
    const int64_t a = Find(left), b = Find(right), merged = Find(joined);
    if (a < 0 || b < 0 || merged < 0) {
      const std::string& missing = a < 0 ? left : b < 0 ? right : joined;
      return BadTokenizer(absl::StrCat("merge ", rank, " names \"", missing.substr(0, 100),
                                       "\", which the vocabulary lacks"));
    }
    merges_[PairKey(static_cast<uint32_t>(a), static_cast<uint32_t>(b))] = {
        static_cast<uint32_t>(rank), static_cast<uint32_t>(merged)};
  }
  return absl::OkStatus();
}

// Vocabularies that mark the start of a word by ▁ have no token with ▁ behind another character. No
// merge then crosses the border between such characters, so that the words of a text without
// pre-tokenizer can be merged one at a time, with the same result.
void BpeModel::DetectWordBoundaries(const TokenizerFile& file) {
  if (ignore_merges_ || !continuing_prefix_.empty() || !word_suffix_.empty() || !byte_fallback_ ||
      Find(kWordStart) < 0 || std::count(byte_ids_.begin(), byte_ids_.end(), -1) > 0) {
    return;
  }
  for (const auto& [left, right] : file.merges) {
    if (absl::StartsWith(right, kWordStart) && !absl::EndsWith(left, kWordStart)) return;
  }
  split_words_ = true;
}

absl::StatusOr<std::unique_ptr<BpeModel>> BpeModel::Create(TokenizerFile* file) {
  const auto it = file->rest.find("model");
  if (it == file->rest.end() || !it->is_object()) return BadTokenizer("it has no model");
  const std::string type = TypeOf(*it);
  // Old files do not name it.
  if (type != "BPE" && !(type.empty() && !file->merges.empty())) {
    return UnsupportedTokenizer(
        absl::StrCat("its model is of the kind \"", type, "\"; only BPE is supported"));
  }
  if (file->vocab.empty()) return BadTokenizer("its vocabulary is empty");
  std::unique_ptr<BpeModel> model(new BpeModel());
  UQ_RETURN_IF_ERROR(model->ReadSettings(*it));
  UQ_RETURN_IF_ERROR(model->AddVocab(file));
  UQ_RETURN_IF_ERROR(model->AddMerges(*file));
  model->DetectWordBoundaries(*file);
  file->merges.clear();
  return model;
}

int64_t BpeModel::Find(absl::string_view token) const {
  const auto it = ids_.find(token);
  return it == ids_.end() ? int64_t{-1} : int64_t{it->second};
}

const std::string* BpeModel::TokenOf(int64_t id) const {
  return id >= 0 && id < id_bound() ? tokens_[id].get() : nullptr;
}

void BpeModel::Encode(absl::string_view piece, bool byte_level, BpeScratch* scratch,
                      std::vector<int32_t>* ids) const {
  if (!split_words_ || byte_level) return EncodeCached(piece, byte_level, scratch, ids);
  size_t start = 0;
  for (size_t at = piece.find(kWordStart); at != absl::string_view::npos;
       at = piece.find(kWordStart, at + kWordStart.size())) {
    if (at == start || absl::EndsWith(piece.substr(0, at), kWordStart)) continue;
    EncodeCached(piece.substr(start, at - start), false, scratch, ids);
    start = at;
  }
  EncodeCached(piece.substr(start), false, scratch, ids);
}

void BpeModel::EncodeCached(absl::string_view piece, bool byte_level, BpeScratch* scratch,
                            std::vector<int32_t>* ids) const {
  const bool cached = piece.size() <= kMaxCachedPiece;
  if (cached) {
    const auto it = scratch->cache.find(piece);
    if (it != scratch->cache.end()) {
      const uint32_t* first = scratch->cached_ids.data() + it->second.offset;
      ids->insert(ids->end(), first, first + it->second.size);
      return;
    }
  }
  const size_t before = ids->size();
  if (byte_level) {
    scratch->mapped.clear();
    AppendByteLevel(piece, &scratch->mapped);
    EncodePiece(scratch->mapped, scratch, ids);
  } else {
    EncodePiece(piece, scratch, ids);
  }
  if (!cached) return;
  if (scratch->cache.size() >= kMaxCachedPieces) {
    scratch->cache.clear();
    scratch->cached_ids.clear();
  }
  scratch->cache.emplace(std::string(piece),
                         BpeScratch::Span{static_cast<uint32_t>(scratch->cached_ids.size()),
                                          static_cast<uint32_t>(ids->size() - before)});
  scratch->cached_ids.insert(scratch->cached_ids.end(), ids->begin() + before, ids->end());
}

void BpeModel::EncodePiece(absl::string_view piece, BpeScratch* scratch,
                           std::vector<int32_t>* ids) const {
  if (ignore_merges_) {
    const auto it = ids_.find(piece);
    if (it != ids_.end()) return ids->push_back(static_cast<int32_t>(it->second));
  }
  StartSymbols(piece, scratch);
  ApplyMerges(scratch);
  for (const BpeScratch::Symbol& symbol : scratch->symbols) {
    if (symbol.alive) ids->push_back(static_cast<int32_t>(symbol.id));
  }
}

void BpeModel::StartSymbols(absl::string_view piece, BpeScratch* scratch) const {
  std::vector<BpeScratch::Symbol>& symbols = scratch->symbols;
  symbols.clear();
  const auto add = [&symbols](uint32_t id) {
    const int32_t at = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, at - 1, at + 1, true});
  };
  bool pending_unk = false;
  std::string decorated;
  for (size_t at = 0; at < piece.size();) {
    const size_t start = at;
    NextCodePoint(piece, &at);
    absl::string_view character = piece.substr(start, at - start);
    if ((start > 0 && !continuing_prefix_.empty()) ||
        (at == piece.size() && !word_suffix_.empty())) {
      decorated = absl::StrCat(start > 0 ? continuing_prefix_ : "", character,
                               at == piece.size() ? word_suffix_ : "");
      character = decorated;
    }
    const auto it = ids_.find(character);
    if (it != ids_.end()) {
      if (pending_unk) add(unk_id_);
      pending_unk = false;
      add(it->second);
      continue;
    }
    if (byte_fallback_ && std::all_of(character.begin(), character.end(), [this](char byte) {
          return byte_ids_[static_cast<uint8_t>(byte)] >= 0;
        })) {
      for (const char byte : character) {
        add(static_cast<uint32_t>(byte_ids_[static_cast<uint8_t>(byte)]));
      }
      continue;  // a pending unknown token comes after these, as in the reference
    }
    if (!has_unk_) continue;
    if (pending_unk && !fuse_unk_) add(unk_id_);
    pending_unk = true;
  }
  if (pending_unk) add(unk_id_);
  if (!symbols.empty()) symbols.back().next = -1;
}

void BpeModel::Queue(BpeScratch* scratch, int32_t left, int32_t right) const {
  const auto it = merges_.find(PairKey(scratch->symbols[left].id, scratch->symbols[right].id));
  if (it == merges_.end()) return;
  scratch->queue.push_back({it->second.rank, left, it->second.id});
}

void BpeModel::ApplyMerges(BpeScratch* scratch) const {
  std::vector<BpeScratch::Symbol>& symbols = scratch->symbols;
  std::vector<BpeScratch::Merge>& queue = scratch->queue;
  queue.clear();
  for (size_t i = 0; i + 1 < symbols.size(); ++i) {
    Queue(scratch, static_cast<int32_t>(i), static_cast<int32_t>(i + 1));
  }
  std::make_heap(queue.begin(), queue.end());
  const auto push = [&](int32_t left, int32_t right) {
    const size_t before = queue.size();
    Queue(scratch, left, right);
    if (queue.size() > before) std::push_heap(queue.begin(), queue.end());
  };
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end());
    const BpeScratch::Merge merge = queue.back();
    queue.pop_back();
    BpeScratch::Symbol& left = symbols[merge.position];
    if (!left.alive || left.next < 0) continue;
    BpeScratch::Symbol& right = symbols[left.next];
    // Stale when its symbols changed; the merged id is what counts, as in the reference.
    const auto it = merges_.find(PairKey(left.id, right.id));
    if (it == merges_.end() || it->second.id != merge.id) continue;
    left.id = merge.id;
    left.next = right.next;
    right.alive = false;
    if (left.next >= 0) symbols[left.next].previous = merge.position;
    if (left.previous >= 0) push(left.previous, merge.position);
    if (left.next >= 0) push(merge.position, left.next);
  }
}

}  // namespace uniquanf
