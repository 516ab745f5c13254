// `uniquanf-batch eval`: perplexity of a checkpoint or an artifact.
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "common/artifact/artifact_reader.h"
#include "common/base/clock.h"
#include "common/base/format_bytes.h"
#include "common/base/status.h"
#include "common/base/terminal_progress.h"
#include "common/object_store/caching_store.h"
#include "common/spec/spec_flags.h"
#include "worker/batch/batch.h"
#include "worker/model/checkpoint.h"
#include "worker/model/language_model.h"
#include "worker/task/tokens.h"
#include "worker/text/text_tokens.h"

namespace uniquanf::batch {
namespace {

struct EvalFlags {
  QuantizationSpec text;
  std::string model, tokens, entry = "valid";
  int64_t window = 1024, max_windows = 200;
  DeviceFlags device;
  CacheFlags cache;
  bool json = false, packed = true;
};

absl::StatusOr<Perplexity> RunEval(const EvalFlags& flags) {
  PerplexityOptions options;
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend,
                      flags.device.MakeBackend(&options.act));
  UQ_ASSIGN_OR_RETURN(const std::shared_ptr<ObjectStore> store,
                      OpenObjectStoreThrough(AbsoluteUri(flags.model), OpenCache(flags.cache)));
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                      Checkpoint::Open(store, /*allow_quantized=*/true));
  if (checkpoint->quantized()) UQ_RETURN_IF_ERROR(CheckArtifactFiles(store.get()));
  UQ_RETURN_IF_ERROR(checkpoint->CheckTiedHead());
  const ModelConfig& config = checkpoint->config();
  if (flags.window > config.max_position_embeddings) {
    return InvalidInput("SEQUENCE_TOO_LONG",
                        absl::StrCat("--window ", flags.window, " is longer than the model's ",
                                     config.max_position_embeddings, " positions"));
  }
  const std::string uri = AbsoluteUri(flags.tokens);
  const int64_t max_tokens = flags.window * flags.max_windows;
  std::vector<int32_t> tokens;
  if (IsTokenFile(uri)) {
    UQ_ASSIGN_OR_RETURN(tokens, ReadEvaluationTokens(uri, flags.entry, flags.window, max_tokens,
                                                     config.vocab_size));
  } else {
    UQ_ASSIGN_OR_RETURN(PackedText packed,
                        ReadEvaluationText(uri, store.get(), TextSettingsOf(flags.text),
                                           flags.window, max_tokens, config.vocab_size, {}));
    tokens = std::move(packed.ids);
  }
  TerminalProgress progress(STDERR_FILENO, DetectTerminal(STDERR_FILENO), SystemClock());
  options.window = flags.window;
  options.max_windows = flags.max_windows;
  options.keep_packed = flags.packed;
  options.stop = [] { return Interrupted(); };
  options.progress = [&progress](int64_t done, int64_t total) {
    ProgressRow row;
    row.label = "evaluate";
    row.fraction = total > 0 ? static_cast<double>(done) / total : 0;
    progress.Update({row});
  };
  return EvaluatePerplexity(backend.get(), *checkpoint, tokens, options);
}

}  // namespace

int Evaluate(const std::vector<std::string>& arguments) {
  EvalFlags flags;
  FlagSet flag_set("uniquanf-batch eval --model DIR --tokens FILE [flags]",
                   "Perplexity of a Hugging Face checkpoint or a unified artifact over windows of "
                   "tokens that do not overlap.");
  flag_set.String("model", "DIR", &flags.model, "checkpoint or artifact");
  flag_set.String("tokens", "FILE", &flags.tokens,
                  "safetensors file with 1-D integer tensors, or text: .txt, .jsonl, .json");
  flag_set.String("entry", "NAME", &flags.entry, "which tensor of the file");
  flag_set.Int64("window", &flags.window, 2, 1 << 20, "tokens a window");
  AddTextFlags(&flag_set, &flags.text);
  flag_set.Int64("max-windows", &flags.max_windows, 0, 1 << 30, "windows at most; 0: all");
  flag_set.Bool("packed", &flags.packed,
                "an artifact's quantized layers multiply from their packed form; --no-packed: they "
                "are dequantized first");
  flag_set.Bool("json", &flags.json, "print JSON");
  flags.device.AddTo(&flag_set);
  flags.cache.AddTo(&flag_set);
  int exit_code = kOk;
  if (!ParseOrExplain(&flag_set, arguments, &exit_code)) return exit_code;
  for (const auto& [name, value] :
       {std::pair{"model", &flags.model}, std::pair{"tokens", &flags.tokens}}) {
    if (!value->empty()) continue;
    std::fprintf(stderr, "error: --%s is required\nTry --help.\n", name);
    return kUsage;
  }
  if (const absl::Status cache = flags.cache.Check(); !cache.ok()) {
    std::fprintf(stderr, "error: %s\nTry --help.\n", std::string(cache.message()).c_str());
    return kUsage;
  }
  const absl::StatusOr<Perplexity> result = RunEval(flags);
  if (!result.ok()) return Fail(result.status(), flags.json);
  if (flags.json) {
    nlohmann::ordered_json json;
    json["perplexity"] = result->perplexity;
    json["num_tokens"] = result->num_tokens;
    json["mean_nll"] = result->mean_nll;
    json["peak_weight_bytes"] = result->peak_weight_bytes;
    json["total_weight_bytes"] = result->total_weight_bytes;
    PrintJsonLine(json);
  } else {
    std::printf("perplexity %.4f on %lld tokens\n", result->perplexity,
                static_cast<long long>(result->num_tokens));
    std::printf("weights held %s at a time, %s in all\n",
                FormatBytes(static_cast<int64_t>(result->peak_weight_bytes)).c_str(),
                FormatBytes(static_cast<int64_t>(result->total_weight_bytes)).c_str());
  }
  return kOk;
}

}  // namespace uniquanf::batch
