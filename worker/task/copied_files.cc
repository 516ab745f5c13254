#include "worker/task/copied_files.h"

#include "absl/strings/str_format.h"
#include "common/artifact/artifact_config.h"
#include "common/base/digest.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr uint64_t kMaxCopiedBytes = 256 << 20;

// In byte order. Weights and config are written by their own code; everything else stays behind.
constexpr const char* kModelFiles[] = {
    "LICENSE",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
};

}  // namespace

absl::Status CopyModelFiles(ObjectStore* from, ObjectStore* to, std::vector<CopiedFile>* files) {
  for (const char* name : kModelFiles) {
    const absl::StatusOr<ObjectInfo> info = from->Stat(name);
    if (absl::IsNotFound(info.status())) continue;
    if (!info.ok()) return info.status();
    if (info->size_bytes > kMaxCopiedBytes) {
      return InvalidInput("FILE_TOO_LARGE",
                          absl::StrCat(from->uri(), "/", name, " has ", info->size_bytes,
                                       " bytes; at most ", kMaxCopiedBytes, " are copied"));
    }
    UQ_ASSIGN_OR_RETURN(const std::string bytes, from->Read(name, kMaxCopiedBytes));
    UQ_RETURN_IF_ERROR(to->Write(name, bytes));
    if (files != nullptr) files->push_back({name, bytes.size(), Sha256Hex(bytes)});
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> CopiedBytes(ObjectStore* from) {
  uint64_t total = 0;
  for (const char* name : kModelFiles) {
    const absl::StatusOr<ObjectInfo> info = from->Stat(name);
    if (absl::IsNotFound(info.status())) continue;
    if (!info.ok()) return info.status();
    total += info->size_bytes;
  }
  return total;
}

ManifestModule HeadModule(const ModelConfig& config) {
  ManifestModule head;
  head.name = config.ends.head;
  head.num_outputs = config.vocab_size;
  head.num_inputs = config.hidden_size;
  head.reason = config.ends.tied ? kTiedReason : "outside the decoder blocks";
  return head;
}

std::string ShardFileName(int index, int num_shards) {
  return absl::StrFormat("model-%05d-of-%05d.safetensors", index + 1, num_shards);
}

}  // namespace uniquanf
