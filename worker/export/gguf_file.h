// `gguf-…`: one GGUF version 3 file (model.gguf) with metadata, vocabulary and all tensors, as
// llama.cpp loads the architectures llama (and Mistral), qwen2 and qwen3. Quantized layers get the
// row's type; what is in full precision keeps its own (vectors become F32, as llama.cpp wants
// them). Rows of q and k are put into the order of llama.cpp's rotary embedding where the
// architecture needs it.
//
// Thread safety: free functions. Errors: EXPORT_NOT_POSSIBLE names the tensor or setting that has
// no place in the format; INVALID_MODEL_CONFIG, INVALID_TOKENIZER; as ExportArtifact.
#ifndef UNIQUANF_WORKER_EXPORT_GGUF_FILE_H_
#define UNIQUANF_WORKER_EXPORT_GGUF_FILE_H_

#include <string>
#include <vector>

#include "worker/export/export.h"
#include "worker/export/gguf_types.h"

namespace uniquanf {

absl::StatusOr<ExportSummary> WriteGguf(const ArtifactReader& reader, const ConfigJson& config,
                                        const GgufType& type, ObjectStore* output,
                                        const ExportOptions& options);

// The key-value section of a GGUF file, in the order of the calls.
class GgufMetadata {
 public:
  void Add(const std::string& key, uint32_t value);
  void Add(const std::string& key, float value);
  void Add(const std::string& key, bool value);
  void Add(const std::string& key, const std::string& value);
  void Add(const std::string& key, const std::vector<std::string>& values);
  void Add(const std::string& key, const std::vector<int32_t>& values);
  const std::string& bytes() const { return bytes_; }
  uint64_t count() const { return count_; }

 private:
  void Key(const std::string& key, uint32_t type);
  std::string bytes_;
  uint64_t count_ = 0;
};

// tokenizer.ggml.*: from tokenizer.json, tokenizer_config.json and chat_template.jinja of the
// artifact. Byte-level BPE only, with a splitting pattern that llama.cpp knows by name.
absl::Status AddVocabulary(ObjectStore* store, const ConfigJson& config, int64_t vocab_size,
                           GgufMetadata* metadata);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_EXPORT_GGUF_FILE_H_
