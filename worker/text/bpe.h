// Byte pair encoding: the model of a tokenizer. Turns one piece of text into ids.
//
// Thread safety: BpeModel is immutable and thread-safe; BpeScratch belongs to one thread.
// Errors: kInvalidArgument (INVALID_TOKENIZER, UNSUPPORTED_TOKENIZER).
#ifndef UNIQUANF_WORKER_TEXT_BPE_H_
#define UNIQUANF_WORKER_TEXT_BPE_H_

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/text/tokenizer_file.h"

namespace uniquanf {

// Remembers pieces that were encoded (words repeat), and holds the buffers of a merge.
struct BpeScratch {
  struct Symbol {
    uint32_t id;
    int32_t previous, next;
    bool alive;
  };
  struct Merge {
    uint32_t rank;
    int32_t position;
    uint32_t id;
    bool operator<(const Merge& other) const {  // of a heap whose top is the first to apply
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  std::vector<Symbol> symbols;
  std::vector<Merge> queue;
  struct Span {
    uint32_t offset, size;
  };
  absl::flat_hash_map<std::string, Span> cache;
  std::vector<uint32_t> cached_ids;
  std::string mapped;
};

class BpeModel {
 public:
  // Takes vocabulary and merges out of `file`.
  static absl::StatusOr<std::unique_ptr<BpeModel>> Create(TokenizerFile* file);

  // Appends the ids of `piece`; `byte_level`: of its bytes' printable characters.
  void Encode(absl::string_view piece, bool byte_level, BpeScratch* scratch,
              std::vector<int32_t>* ids) const;

  // The id of a token, or -1.
  int64_t Find(absl::string_view token) const;
  // The token of an id, or null. Valid as long as the model.
  const std::string* TokenOf(int64_t id) const;
  // One more than the largest id.
  int64_t id_bound() const { return static_cast<int64_t>(tokens_.size()); }

 private:
  struct Target {
    uint32_t rank, id;
  };
  BpeModel() = default;
  absl::Status ReadSettings(const nlohmann::json& model);
  absl::Status AddVocab(TokenizerFile* file);
  absl::Status AddMerges(const TokenizerFile& file);
  void DetectWordBoundaries(const TokenizerFile& file);
  void EncodeCached(absl::string_view piece, bool byte_level, BpeScratch* scratch,
                    std::vector<int32_t>* ids) const;
  void EncodePiece(absl::string_view piece, BpeScratch* scratch, std::vector<int32_t>* ids) const;
  void StartSymbols(absl::string_view piece, BpeScratch* scratch) const;
  void ApplyMerges(BpeScratch* scratch) const;
  void Queue(BpeScratch* scratch, int32_t left, int32_t right) const;

  std::string continuing_prefix_, word_suffix_, unk_token_;
  bool has_unk_ = false, fuse_unk_ = false, byte_fallback_ = false, ignore_merges_ = false;
  uint32_t unk_id_ = 0;
  std::array<int64_t, 256> byte_ids_;  // of "<0xHH>", or -1
  absl::flat_hash_map<absl::string_view, uint32_t> ids_;
  std::vector<std::unique_ptr<const std::string>> tokens_;  // by id, null in holes
  absl::flat_hash_map<uint64_t, Target> merges_;            // by left id << 32 | right id
  bool split_words_ = false;  // no merge joins "…x" and "▁…": words can be encoded one by one
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TEXT_BPE_H_
