#include "worker/task/copied_files.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "common/artifact/artifact_config.h"
#include "common/artifact/manifest.h"
#include "common/base/digest.h"
#include "common/base/status.h"
#include "worker/model/model_folder.h"

namespace uniquanf {
namespace {

// Of a file that readers need, and of any other.
constexpr uint64_t kMaxNeededBytes = 256 << 20, kMaxOtherBytes = 16 << 20;
constexpr size_t kMaxFiles = 1000;

constexpr const char* kNeeded[] = {"added_tokens.json",
                                   "chat_template.jinja",
                                   "chat_template.json",
                                   "generation_config.json",
                                   "merges.txt",
                                   "preprocessor_config.json",
                                   "processor_config.json",
                                   "special_tokens_map.json",
                                   "tokenizer.json",
                                   "tokenizer.model",
                                   "tokenizer_config.json",
                                   "vocab.json",
                                   "vocab.txt"};

// Written by their own code, in place of the source's.
constexpr const char* kReplaced[] = {"config.json", "model.safetensors.index.json"};
// An artifact's own, which a source should not have.
constexpr const char* kOwn[] = {kManifestKey, kOutputMarkerKey, "report.html", "run.json"};
// They say how the source is quantized.
constexpr const char* kStale[] = {"hf_quant_config.json", "quantize_config.json",
                                  "quant_config.json"};
constexpr const char* kWeights[] = {".bin",     ".pt", ".pth",    ".gguf",
                                    ".onnx",    ".h5", ".ckpt",   ".onnx_data",
                                    ".msgpack", ".ot", ".tflite", ".index.json"};
// The only folder that transformers writes files into which a tokenizer needs.
constexpr char kTemplates[] = "additional_chat_templates/";

template <typename Names>
bool IsOneOf(absl::string_view name, const Names& names) {
  return std::any_of(std::begin(names), std::end(names),
                     [&](const char* candidate) { return name == candidate; });
}

bool IsWeights(absl::string_view name) {
  return std::any_of(std::begin(kWeights), std::end(kWeights),
                     [&](const char* ending) { return absl::EndsWith(name, ending); });
}

}  // namespace

uint64_t CopyPlan::size_bytes() const {
  uint64_t sum = 0;
  for (const File& file : files) sum += file.size_bytes;
  return sum;
}

absl::StatusOr<CopyPlan> PlanCopies(ObjectStore* from) {
  UQ_ASSIGN_OR_RETURN(FolderEntries entries, ListFolder(from, ""));
  CopyPlan plan;
  for (const std::string& folder : entries.folders) {
    if (folder + "/" == kTemplates) {
      UQ_ASSIGN_OR_RETURN(const FolderEntries templates, ListFolder(from, kTemplates));
      for (const ObjectInfo& file : templates.files) entries.files.push_back(file);
    } else if (folder[0] != '.') {
      plan.left_out.push_back(folder + "/");
    }
  }
  for (const ObjectInfo& file : entries.files) {
    const std::string& name = file.key;
    if (name[0] == '.' || IsOneOf(name, kReplaced) || absl::EndsWith(name, ".safetensors")) {
      continue;
    }
    const bool needed = IsOneOf(name, kNeeded);
    if (needed && file.size_bytes > kMaxNeededBytes) {
      return InvalidInput("FILE_TOO_LARGE",
                          absl::StrCat(from->uri(), "/", name, " has ", file.size_bytes,
                                       " bytes; at most ", kMaxNeededBytes, " are copied"));
    }
    if (IsOneOf(name, kOwn) || IsOneOf(name, kStale) || (!needed && IsWeights(name)) ||
        (!needed && (file.size_bytes > kMaxOtherBytes || plan.files.size() >= kMaxFiles))) {
      plan.left_out.push_back(name);
      continue;
    }
    const bool readme = absl::StartsWithIgnoreCase(name, "readme");
    plan.files.push_back({name, readme ? "SOURCE_" + name : name, file.size_bytes});
  }
  std::sort(plan.files.begin(), plan.files.end(),
            [](const CopyPlan::File& a, const CopyPlan::File& b) { return a.from < b.from; });
  std::sort(plan.left_out.begin(), plan.left_out.end());
  return plan;
}

absl::Status CopyModelFiles(const CopyPlan& plan, ObjectStore* from, ObjectStore* to,
                            std::vector<CopiedFile>* files) {
  for (const CopyPlan::File& file : plan.files) {
    UQ_ASSIGN_OR_RETURN(const std::string bytes, from->Read(file.from, kMaxNeededBytes));
    UQ_RETURN_IF_ERROR(to->Write(file.to, bytes));
    files->push_back({file.to, bytes.size(), Sha256Hex(bytes)});
  }
  return absl::OkStatus();
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
