// `uniquanf-batch generate`: text from a checkpoint or an artifact, on this machine.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/time/time.h"
#include "common/base/clock.h"
#include "common/base/printable.h"
#include "common/base/status.h"
#include "common/object_store/caching_store.h"
#include "common/spec/spec_flags.h"
#include "worker/batch/batch.h"
#include "worker/generate/continuation.h"
#include "worker/generate/special_tokens.h"
#include "worker/model/token_range.h"
#include "worker/text/chat_template.h"
#include "worker/text/text_tokens.h"

namespace uniquanf::batch {
namespace {

struct GenerateFlags {
  std::string model, prompt, prompt_file, system;
  bool chat = false, json = false, stats = false, raw = false, packed = true;
  ContinuationOptions continuation;
  DeviceFlags device;
  CacheFlags cache;
};

// Writes text as it comes. On a terminal nothing of it but line feeds and tabs acts.
class TextOutput {
 public:
  explicit TextOutput(bool quiet) : quiet_(quiet), terminal_(isatty(STDOUT_FILENO) == 1) {}
  void Write(const std::string& text) {
    all_ += text;
    if (quiet_ || text.empty()) return;
    std::string shown;
    for (size_t begin = 0; terminal_ && begin <= text.size();) {
      const size_t end = std::min(text.find_first_of("\n\t", begin), text.size());
      shown += PrintableText(absl::string_view(text).substr(begin, end - begin));
      if (end < text.size()) shown += text[end];
      begin = end + 1;
    }
    std::fputs(terminal_ ? shown.c_str() : text.c_str(), stdout);
    std::fflush(stdout);
  }
  void EndLine() {
    if (!quiet_ && (all_.empty() || all_.back() != '\n')) std::fputs("\n", stdout);
    std::fflush(stdout);
  }
  const std::string& all() const { return all_; }

 private:
  const bool quiet_, terminal_;
  std::string all_;
};

class Generator {
 public:
  explicit Generator(GenerateFlags* flags) : flags_(*flags) {}

  absl::Status Open() {
    const absl::Time start = SystemClock().Now();
    DType act = DType::kFloat32;
    UQ_ASSIGN_OR_RETURN(backend_, flags_.device.MakeBackend(&act));
    UQ_ASSIGN_OR_RETURN(const std::shared_ptr<ObjectStore> store,
                        OpenObjectStoreThrough(AbsoluteUri(flags_.model), OpenCache(flags_.cache)));
    UQ_ASSIGN_OR_RETURN(checkpoint_, Checkpoint::Open(store, /*allow_quantized=*/true));
    TextSettings settings;
    UQ_ASSIGN_OR_RETURN(text_, TextTokenizer::Open(store.get(), settings));
    UQ_ASSIGN_OR_RETURN(special_, ReadSpecialTokens(store.get(), checkpoint_->config_json(),
                                                    checkpoint_->config().vocab_size));
    if (flags_.chat) UQ_RETURN_IF_ERROR(OpenChat(store.get()));
    flags_.continuation.end = special_.end;
    flags_.continuation.stop = [] { return Interrupted(); };
    ResidentOptions options;
    options.act = act;
    options.stop = flags_.continuation.stop;
    options.keep_packed = flags_.packed;
    UQ_ASSIGN_OR_RETURN(model_, ResidentModel::Load(backend_.get(), *checkpoint_, options));
    load_time_ = SystemClock().Now() - start;
    return absl::OkStatus();
  }

  // The answer to a conversation, which is also written.
  absl::StatusOr<std::string> Answer(const nlohmann::ordered_json& messages) {
    ChatOptions options;
    options.add_generation_prompt = true;
    options.now = SystemClock().Now();
    nlohmann::ordered_json conversation;
    conversation["messages"] = messages;
    UQ_ASSIGN_OR_RETURN(const std::string text, chat_->Render(conversation, options));
    // Templates print the tokens for the beginning themselves.
    return Run(text, /*add_special_tokens=*/false, /*shown=*/"");
  }
  // What follows `prompt`, which is also written, with the prompt before it.
  absl::StatusOr<std::string> Complete(const std::string& prompt) {
    return Run(prompt, /*add_special_tokens=*/true, prompt);
  }

 private:
  absl::Status OpenChat(ObjectStore* store) {
    UQ_ASSIGN_OR_RETURN(const nlohmann::ordered_json config, ReadTokenizerConfig(store));
    UQ_ASSIGN_OR_RETURN(const ChatTemplates templates, ReadChatTemplates(store, config));
    chat_ = templates.chat;
    if (chat_ != nullptr) return absl::OkStatus();
    return InvalidInput("NO_CHAT_TEMPLATE",
                        "the model has no chat template; use --prompt without --chat");
  }

  absl::StatusOr<std::string> Run(const std::string& text, bool add_special_tokens,
                                  const std::string& shown) {
    std::vector<int32_t> prompt;
    EncodeOptions encode;
    encode.add_special_tokens = add_special_tokens;
    UQ_RETURN_IF_ERROR(text_->tokenizer().Encode(text, encode, &scratch_, &prompt));
    UQ_RETURN_IF_ERROR(CheckTokens<int32_t>(prompt, checkpoint_->config().vocab_size));
    // Nothing to go on from but the model's own beginning.
    if (prompt.empty() && special_.begin >= 0) prompt.push_back(special_.begin);
    if (prompt.empty()) {
      return InvalidInput("EMPTY_PROMPT",
                          "the prompt has no tokens and the model names none that "
                          "begins a text; give --prompt");
    }
    TextOutput output(flags_.json);
    if (!flags_.json) output.Write(shown);
    const size_t given = output.all().size();
    TextStream stream(text_->tokenizer(), /*skip_special=*/!flags_.raw);
    ContinuationOptions options = flags_.continuation;
    const absl::Time start = SystemClock().Now();
    absl::Time first = start;
    options.on_token = [&](int32_t id) {
      if (first == start) first = SystemClock().Now();
      output.Write(stream.Add(id));
    };
    UQ_ASSIGN_OR_RETURN(const Continuation result, Continue(model_.get(), prompt, options));
    const absl::Time end = SystemClock().Now();
    output.Write(stream.Finish());
    output.EndLine();
    std::string written = output.all().substr(given);
    if (flags_.json) PrintJson(prompt, result, written);
    if (flags_.stats) PrintStats(prompt.size(), result, first - start, end - first);
    if (result.end == Continuation::End::kStopped) {
      return absl::CancelledError("interrupted");
    }
    return written;
  }

  static void PrintJson(const std::vector<int32_t>& prompt, const Continuation& result,
                        const std::string& text) {
    nlohmann::ordered_json json;
    json["text"] = text;
    json["end"] = EndName(result.end);
    json["num_prompt_tokens"] = prompt.size();
    json["ids"] = result.ids;
    PrintJsonLine(json);
  }
  void PrintStats(size_t prompt_tokens, const Continuation& result, absl::Duration first,
                  absl::Duration rest) const {
    const double later = static_cast<double>(result.ids.size()) - 1;
    std::fprintf(stderr,
                 "loaded in %.2f s, weights %.1f MiB; %zu prompt tokens in %.3f s; %zu tokens, "
                 "%.1f a second; ended by %s\n",
                 absl::ToDoubleSeconds(load_time_),
                 static_cast<double>(model_->weight_bytes()) / (1 << 20), prompt_tokens,
                 absl::ToDoubleSeconds(first), result.ids.size(),
                 later > 0 ? later / absl::ToDoubleSeconds(rest) : 0.0, EndName(result.end));
  }

  GenerateFlags& flags_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<TextTokenizer> text_;
  TokenizerScratch scratch_;
  std::shared_ptr<const ChatTemplate> chat_;  // null: not asked for
  BoundaryTokens special_;
  std::unique_ptr<ResidentModel> model_;
  absl::Duration load_time_;
};

// A conversation from standard input, a line a turn; `prompt` is the first.
absl::Status RunChat(const GenerateFlags& flags, Generator* generator) {
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  const auto say = [&](const char* role, const std::string& text) {
    messages.push_back({{"role", role}, {"content", text}});
  };
  if (!flags.system.empty()) say("system", flags.system);
  const bool terminal = isatty(STDIN_FILENO) == 1;
  const bool one_turn = !flags.prompt.empty();
  std::string line = flags.prompt;
  while (true) {
    if (!one_turn) {
      if (terminal) std::fputs("> ", stderr);
      if (!std::getline(std::cin, line) || Interrupted()) break;
      if (line.empty()) continue;
    }
    say("user", line);
    UQ_ASSIGN_OR_RETURN(const std::string answer, generator->Answer(messages));
    say("assistant", answer);
    if (one_turn) break;
  }
  return absl::OkStatus();
}

absl::Status RunGenerate(GenerateFlags* flags) {
  if (!flags->prompt_file.empty()) {
    UQ_ASSIGN_OR_RETURN(flags->prompt, ReadTextFile(AbsoluteUri(flags->prompt_file), {}));
  }
  Generator generator(flags);
  UQ_RETURN_IF_ERROR(generator.Open());
  if (flags->chat) return RunChat(*flags, &generator);
  return generator.Complete(flags->prompt).status();
}

}  // namespace

int Generate(const std::vector<std::string>& arguments) {
  GenerateFlags flags;
  ContinuationOptions& options = flags.continuation;
  FlagSet flag_set("uniquanf-batch generate MODEL [--prompt TEXT | --chat] [flags]",
                   "Writes what a checkpoint or an artifact says after a prompt. An artifact's "
                   "weights stay packed in memory. Ctrl-C ends the text.");
  flag_set.Positional("MODEL", true, &flags.model, "checkpoint or artifact with a tokenizer.json");
  flag_set.String("prompt", "TEXT", &flags.prompt, "what the text begins with");
  flag_set.String("prompt-file", "FILE", &flags.prompt_file, "the same from a file");
  flag_set.Bool("chat", &flags.chat,
                "a conversation by the model's chat template: --prompt is one turn of it; without, "
                "each line of standard input is");
  flag_set.String("system", "TEXT", &flags.system, "with --chat: what the system says first");
  flag_set.Int64("max-new-tokens", &options.max_new_tokens, 1, 1 << 20, "tokens at most");
  flag_set.Double("temperature", &options.sampling.temperature, 0, 100,
                  "of the draw of each token; 0: the most probable one");
  flag_set.Double("top-p", &options.sampling.top_p, 1e-6, 1,
                  "draw from the most probable tokens that reach this probability together");
  flag_set.Uint64("seed", &options.sampling.seed, 0, std::numeric_limits<uint64_t>::max(),
                  "of the draws: the same text for the same seed on one kind of device");
  flag_set.Bool("special-tokens", &flags.raw, "show special tokens too");
  flag_set.Bool("packed", &flags.packed,
                "an artifact's quantized layers multiply from their packed form; --no-packed: they "
                "are dequantized first");
  flag_set.Bool("stats", &flags.stats, "tell times and memory on standard error");
  flag_set.Bool("json", &flags.json, "print one line of JSON a text, when it is complete");
  flags.device.AddTo(&flag_set);
  flags.cache.AddTo(&flag_set);
  int exit_code = kOk;
  if (!ParseOrExplain(&flag_set, arguments, &exit_code)) return exit_code;
  const char* problem = nullptr;
  if (!flags.prompt.empty() && !flags.prompt_file.empty()) {
    problem = "--prompt and --prompt-file cannot be given both";
  } else if (!flags.system.empty() && !flags.chat) {
    problem = "--system needs --chat";
  }
  if (problem != nullptr) {
    std::fprintf(stderr, "error: %s\nTry --help.\n", problem);
    return kUsage;
  }
  if (const absl::Status cache = flags.cache.Check(); !cache.ok()) {
    std::fprintf(stderr, "error: %s\nTry --help.\n", std::string(cache.message()).c_str());
    return kUsage;
  }
  const absl::Status status = RunGenerate(&flags);
  if (absl::IsCancelled(status)) return kInterrupted;
  return status.ok() ? kOk : Fail(status, flags.json);
}

}  // namespace uniquanf::batch
