#include "worker/text/pre_tokenizer.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "common/base/status.h"
#include "worker/text/tokenizer_file.h"
#include "worker/text/unicode.h"

namespace uniquanf {
namespace {

constexpr absl::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Runs of word characters and runs of others that are no whitespace are matches.
void FindWords(absl::string_view text, std::vector<PiecePart>* parts) {
  const auto kind = [](char32_t c) { return IsWordCharacter(c) ? 2 : IsWhitespace(c) ? 0 : 1; };
  int current = -1;
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    const int next = kind(NextCodePoint(text, &at));
    if (next == current) {
      parts->back().end = at;
    } else {
      parts->push_back({start, at, next != 0});
    }
    current = next;
  }
}

void FindCharacters(absl::string_view text, bool (*is_match)(char32_t),
                    std::vector<PiecePart>* parts) {
  bool in_gap = false;
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    const bool matched = is_match(NextCodePoint(text, &at));
    if (!matched && in_gap) {
      parts->back().end = at;
    } else {
      parts->push_back({start, at, matched});
    }
    in_gap = !matched;
  }
}

}  // namespace

void PreTokenizer::AddCharacters(bool (*is_match)(char32_t), SplitBehavior behavior) {
  Step step(Kind::kCharacters);
  step.is_match = is_match;
  step.behavior = behavior;
  steps_.push_back(std::move(step));
}

absl::Status PreTokenizer::AddSplit(const nlohmann::json& json) {
  absl::Status status;
  Step step(Kind::kPattern);
  UQ_ASSIGN_OR_RETURN(step.pattern, Pattern::Create(json));
  UQ_ASSIGN_OR_RETURN(step.behavior, ParseSplitBehavior(StringOr(json, "behavior", "", &status)));
  step.invert = BoolOr(json, "invert", false, &status);
  steps_.push_back(std::move(step));
  return status;
}

absl::Status PreTokenizer::AddByteLevel(const nlohmann::json& json) {
  absl::Status status;
  if (BoolOr(json, "add_prefix_space", true, &status)) {
    steps_.emplace_back(Kind::kAddPrefixSpace);
  }
  if (BoolOr(json, "use_regex", true, &status)) {
    Step step(Kind::kPattern);
    UQ_ASSIGN_OR_RETURN(step.pattern, Pattern::FromRegex(kGpt2Pattern));
    steps_.push_back(std::move(step));
  }
  steps_.emplace_back(Kind::kBytes);
  return status;
}

absl::Status PreTokenizer::AddMetaspace(const nlohmann::json& json) {
  absl::Status status;
  Step step(Kind::kMetaspace);
  step.replacement = StringOr(json, "replacement", "\xE2\x96\x81", &status);
  const std::string scheme = StringOr(json, "prepend_scheme", "always", &status);
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    return BadTokenizer(absl::StrCat("\"", scheme, "\" is no prepend_scheme"));
  }
  step.scheme = scheme == "always"  ? Scheme::kAlways
                : scheme == "first" ? Scheme::kFirst
                                    : Scheme::kNever;
  if (!BoolOr(json, "add_prefix_space", true, &status)) step.scheme = Scheme::kNever;
  UQ_RETURN_IF_ERROR(status);
  if (step.replacement.empty()) return BadTokenizer("Metaspace replaces spaces by nothing");
  Step split(Kind::kPattern, Pattern::FromString(step.replacement));
  split.behavior = SplitBehavior::kMergedWithNext;
  steps_.push_back(std::move(step));
  if (BoolOr(json, "split", true, &status)) steps_.push_back(std::move(split));
  return status;
}

absl::Status PreTokenizer::Add(const nlohmann::json& json, int depth) {
  if (json.is_null()) return absl::OkStatus();
  const std::string type = TypeOf(json);
  absl::Status status;
  if (type == "Sequence") {
    const auto it = json.find("pretokenizers");
    if (it == json.end() || !it->is_array() || it->size() > 100 || depth > 8) {
      return BadTokenizer("the pre-tokenizer \"Sequence\" has no list of at most 100 members");
    }
    for (const nlohmann::json& member : *it) UQ_RETURN_IF_ERROR(Add(member, depth + 1));
    return absl::OkStatus();
  }
  if (type == "Split") return AddSplit(json);
  if (type == "ByteLevel") return AddByteLevel(json);
  if (type == "Metaspace") return AddMetaspace(json);
  if (type == "Digits") {
    AddCharacters(IsNumeric, BoolOr(json, "individual_digits", false, &status)
                                 ? SplitBehavior::kIsolated
                                 : SplitBehavior::kContiguous);
    return status;
  }
  if (type == "Punctuation") {
    UQ_ASSIGN_OR_RETURN(const SplitBehavior behavior,
                        ParseSplitBehavior(StringOr(json, "behavior", "Isolated", &status)));
    AddCharacters(IsPunctuation, behavior);
    return status;
  }
  if (type == "WhitespaceSplit" || type == "BertPreTokenizer") {
    AddCharacters(IsWhitespace, SplitBehavior::kRemoved);
    if (type == "BertPreTokenizer") AddCharacters(IsPunctuation, SplitBehavior::kIsolated);
    return absl::OkStatus();
  }
  if (type == "Whitespace") {
    Step step(Kind::kWords);
    step.invert = true;
    step.behavior = SplitBehavior::kRemoved;
    steps_.push_back(std::move(step));
    return absl::OkStatus();
  }
  if (type == "CharDelimiterSplit") {
    const std::string delimiter = StringOr(json, "delimiter", "", &status);
    UQ_RETURN_IF_ERROR(status);
    if (delimiter.empty()) return BadTokenizer("CharDelimiterSplit has no delimiter");
    Step step(Kind::kPattern, Pattern::FromString(delimiter));
    step.behavior = SplitBehavior::kRemoved;
    steps_.push_back(std::move(step));
    return absl::OkStatus();
  }
  return UnsupportedTokenizer(
      absl::StrCat("its pre-tokenizer is of the kind \"", type, "\", which is not supported"));
}

absl::StatusOr<PreTokenizer> PreTokenizer::Create(const nlohmann::json& json) {
  PreTokenizer result;
  UQ_RETURN_IF_ERROR(result.Add(json, 0));
  if (!result.steps_.empty() && result.steps_.back().kind == Kind::kBytes) {
    result.byte_level_ = true;
    result.steps_.pop_back();
  }
  return result;
}

absl::Status PreTokenizer::Cut(const Step& step, absl::string_view text,
                               std::vector<PiecePart>* parts) const {
  if (step.kind == Kind::kPattern) UQ_RETURN_IF_ERROR(step.pattern.Find(text, parts));
  if (step.kind == Kind::kCharacters) FindCharacters(text, step.is_match, parts);
  if (step.kind == Kind::kWords) FindWords(text, parts);
  if (step.invert) {
    for (PiecePart& part : *parts) part.matched = !part.matched;
  }
  ApplySplitBehavior(step.behavior, parts);
  return absl::OkStatus();
}

absl::Status PreTokenizer::Split(absl::string_view text, bool at_start, Emit emit) const {
  if (text.empty()) return absl::OkStatus();
  return Run(0, text, at_start, emit);
}

absl::Status PreTokenizer::Run(size_t index, absl::string_view text, bool at_start,
                               Emit emit) const {
  if (index == steps_.size()) {
    emit(text);
    return absl::OkStatus();
  }
  const Step& step = steps_[index];
  std::string changed;
  switch (step.kind) {
    case Kind::kAddPrefixSpace:
      if (text[0] == ' ') return Run(index + 1, text, at_start, emit);
      changed = absl::StrCat(" ", text);
      return Run(index + 1, changed, at_start, emit);
    case Kind::kBytes:
      AppendByteLevel(text, &changed);
      return Run(index + 1, changed, at_start, emit);
    case Kind::kMetaspace: {
      changed = absl::StrReplaceAll(text, {{" ", step.replacement}});
      const bool prepends =
          step.scheme == Scheme::kAlways || (step.scheme == Scheme::kFirst && at_start);
      if (prepends && !absl::StartsWith(changed, step.replacement)) {
        changed.insert(0, step.replacement);
      }
      return Run(index + 1, changed, at_start, emit);
    }
    default:
      break;
  }
  const bool streams = step.kind == Kind::kPattern && step.pattern.regex() != nullptr &&
                       step.behavior == SplitBehavior::kIsolated;
  if (streams) {  // no list of pieces of a long text
    RegexMatches matches(*step.pattern.regex(), text);
    size_t previous = 0;
    const auto pass_on = [&](size_t start, size_t end) {
      if (start == end) return absl::OkStatus();
      return Run(index + 1, text.substr(start, end - start), at_start && start == 0, emit);
    };
    while (matches.Next()) {
      UQ_RETURN_IF_ERROR(pass_on(previous, matches.start()));
      UQ_RETURN_IF_ERROR(pass_on(matches.start(), matches.end()));
      previous = matches.end();
    }
    UQ_RETURN_IF_ERROR(matches.status());
    return pass_on(previous, text.size());
  }
  std::vector<PiecePart> parts;
  UQ_RETURN_IF_ERROR(Cut(step, text, &parts));
  for (const PiecePart& part : parts) {
    if (part.start == part.end) continue;
    UQ_RETURN_IF_ERROR(Run(index + 1, text.substr(part.start, part.end - part.start),
                           at_start && part.start == 0, emit));
  }
  return absl::OkStatus();
}

}  // namespace uniquanf
