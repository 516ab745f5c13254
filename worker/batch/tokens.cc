// `uniquanf-batch tokens`: text files as a file of token ids, to look at or to use elsewhere.
#include <unistd.h>

#include <cstdio>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "common/base/printable.h"
#include "common/base/status.h"
#include "common/safetensors/safetensors.h"
#include "common/spec/spec_flags.h"
#include "worker/batch/batch.h"
#include "worker/text/text_tokens.h"

namespace uniquanf::batch {
namespace {

constexpr int64_t kAnyVocabulary = std::numeric_limits<int32_t>::max();

struct TokensFlags {
  std::string model, output, entry;
  std::vector<std::string> inputs;
  int64_t num_samples = 128, sequence_length = 2048;
  bool dump_ids = false;
  QuantizationSpec text;
};

// "FILE" or "FILE:num=N".
absl::StatusOr<TextSource> ParseSource(const std::string& input) {
  if (!absl::StrContains(input, ":num=")) return TextSource{AbsoluteUri(input), 0};
  absl::StatusOr<CalibrationShare> share = ParseCalibrationShare(input);
  if (!share.ok()) return Annotate(share.status(), absl::StrCat("--input ", input));
  return TextSource{AbsoluteUri(share->uri), share->num_sequences};
}

absl::Status DumpIds(const TokensFlags& flags, TextTokenizer* tokenizer) {
  for (const std::string& input : flags.inputs) {
    UQ_ASSIGN_OR_RETURN(const TextSource source, ParseSource(input));
    UQ_ASSIGN_OR_RETURN(std::string bytes, ReadTextFile(source.uri, {}));
    ParseTextOptions options;
    options.field = flags.text.text_field;
    options.lines = true;
    UQ_ASSIGN_OR_RETURN(const TextFileContent content,
                        ParseTextFile(source.uri, std::move(bytes), options));
    for (const TextDocument& document : content.documents) {
      std::vector<int32_t> ids;
      UQ_RETURN_IF_ERROR(tokenizer->Encode(document, kAnyVocabulary, &ids));
      std::printf("[%s]\n", absl::StrJoin(ids, ", ").c_str());
      if (Interrupted()) return absl::CancelledError("interrupted");
    }
  }
  return absl::OkStatus();
}

absl::Status WriteTokens(const std::string& output, const std::string& entry,
                         std::vector<int64_t> shape, const std::vector<int32_t>& ids) {
  UQ_ASSIGN_OR_RETURN(const ObjectLocation location, OpenObjectLocation(AbsoluteUri(output)));
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<ObjectWriter> file,
                      location.store->NewWriter(location.key, WriteOptions()));
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsWriter> writer,
                      SafetensorsWriter::Create(
                          file.get(), {{entry, SafetensorsDType::kI32, std::move(shape)}}, {}));
  UQ_RETURN_IF_ERROR(writer->Append(entry, ids.data(), ids.size() * sizeof(int32_t)));
  UQ_RETURN_IF_ERROR(writer->Finish());
  return file->Commit();
}

absl::Status RunTokens(const TokensFlags& flags) {
  UQ_ASSIGN_OR_RETURN(const std::shared_ptr<ObjectStore> store,
                      OpenObjectStore(AbsoluteUri(flags.model)));
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<TextTokenizer> tokenizer,
                      TextTokenizer::Open(store.get(), TextSettingsOf(flags.text)));
  if (flags.dump_ids) return DumpIds(flags, tokenizer.get());
  PackedText packed;
  if (flags.entry.empty()) {
    std::vector<TextSource> sources;
    for (const std::string& input : flags.inputs) {
      UQ_ASSIGN_OR_RETURN(TextSource source, ParseSource(input));
      sources.push_back(std::move(source));
    }
    UQ_ASSIGN_OR_RETURN(packed, PackCalibrationText(sources, tokenizer.get(), flags.num_samples,
                                                    flags.sequence_length, kAnyVocabulary, {}));
    UQ_RETURN_IF_ERROR(WriteTokens(flags.output, "input_ids",
                                   {packed.num_sequences, packed.sequence_length}, packed.ids));
  } else {
    if (flags.inputs.size() > 1) {
      return InvalidInput("INVALID_FLAG", "--entry takes one --input");
    }
    UQ_ASSIGN_OR_RETURN(packed, PackEvaluationText(AbsoluteUri(flags.inputs[0]), tokenizer.get(), 1,
                                                   0, kAnyVocabulary, {}));
    UQ_RETURN_IF_ERROR(
        WriteTokens(flags.output, flags.entry, {packed.sequence_length}, packed.ids));
  }
  for (size_t i = 0; i < packed.provenance.files.size(); ++i) {
    const TextFileProvenance& facts = packed.provenance.files[i];
    std::printf("%s: %lld documents (%lld used, %lld too short, %lld refused), %lld sequences\n",
                flags.inputs[i].c_str(), static_cast<long long>(facts.num_documents),
                static_cast<long long>(facts.num_used), static_cast<long long>(facts.num_too_short),
                static_cast<long long>(facts.num_refused),
                static_cast<long long>(facts.num_sequences));
  }
  for (const std::string& warning : packed.warnings) {
    std::fprintf(stderr, "warning: %s\n", PrintableText(warning).c_str());
  }
  std::printf("wrote %s: %lld tokens\n", flags.output.c_str(),
              static_cast<long long>(packed.ids.size()));
  return absl::OkStatus();
}

}  // namespace

int Tokens(const std::vector<std::string>& arguments) {
  TokensFlags flags;
  FlagSet flag_set("uniquanf-batch tokens --model DIR --input FILE... --output FILE [flags]",
                   "Turns text files (.txt, .jsonl, .json, also .gz and .zst) into token ids with "
                   "the model's tokenizer.");
  flag_set.String("model", "DIR", &flags.model, "checkpoint with a tokenizer.json");
  flag_set.Repeated("input", "FILE[:num=N]", &flags.inputs,
                    "text file; N: sequences taken of it; may repeat for a mix");
  flag_set.String("output", "FILE", &flags.output, "safetensors file to write");
  flag_set.Bool("dump-ids", &flags.dump_ids,
                "print one JSON array of ids a line or sample instead, with no packing");
  flag_set.String("entry", "NAME", &flags.entry,
                  "write one tensor of this name with all tokens, for evaluation");
  flag_set.Int64("num-samples", &flags.num_samples, 0, 1000000, "sequences; 0: all");
  flag_set.Int64("sequence-length", &flags.sequence_length, 1, 1 << 20, "tokens of each");
  AddTextFlags(&flag_set, &flags.text);
  int exit_code = kOk;
  if (!ParseOrExplain(&flag_set, arguments, &exit_code)) return exit_code;
  const char* missing = flags.model.empty()                       ? "--model"
                        : flags.inputs.empty()                    ? "--input"
                        : flags.output.empty() && !flags.dump_ids ? "--output"
                                                                  : nullptr;
  if (missing != nullptr) {
    std::fprintf(stderr, "error: %s is required\nTry --help.\n", missing);
    return kUsage;
  }
  const absl::Status status = RunTokens(flags);
  return status.ok() ? kOk : Fail(status, false);
}

}  // namespace uniquanf::batch
