#include "worker/text/tokenizer_file.h"

#include "common/base/status.h"

namespace uniquanf {
namespace {

using Json = nlohmann::json;
using Event = Json::parse_event_t;

constexpr int kMaxDepth = 32;

// Takes vocabulary and merges out of the parser's events; keeps the rest.
class Collector {
 public:
  explicit Collector(TokenizerFile* file) : file_(file) {}

  bool operator()(int depth, Event event, Json& value) {
    if (!status_.ok()) return false;
    if (depth > kMaxDepth) return Fail("it is nested too deeply");
    switch (event) {
      case Event::key:
        if (depth == 1) top_ = value.get<std::string>();
        if (depth == 2) second_ = value.get<std::string>();
        if (!InModel("vocab") || depth != 3) return true;
        token_ = value.get<std::string>();
        return false;
      case Event::value:
        if (depth == 2 && (InModel("vocab") || InModel("merges")) && !value.is_null()) {
          return Fail(absl::StrCat("\"", second_, "\" of the model is neither object nor list"));
        }
        if (InModel("vocab") && depth == 3) return Entry(value);
        if (InModel("merges") && depth == 3) return SpelledMerge(value);
        if (InModel("merges") && depth == 4) return PartOfPair(value);
        return true;
      case Event::array_start:
        if (InModel("vocab")) return false;  // of a kind that is refused
        if (InModel("merges") && depth == 3) pair_.clear();
        if (InModel("merges") && depth > 3) return Fail("a merge is no pair of strings");
        return true;
      case Event::array_end:
        if (InModel("merges") && depth == 3) return Pair();
        return true;
      case Event::object_start:
        if (InModel("vocab") && depth > 2) return Fail("the vocabulary maps a token to no number");
        if (InModel("merges") && depth > 2) return Fail("a merge is no pair of strings");
        return true;
      case Event::object_end:
        return true;
    }
    return true;
  }
  const absl::Status& status() const { return status_; }

 private:
  bool InModel(absl::string_view member) const { return top_ == "model" && second_ == member; }
  bool Fail(absl::string_view message) {
    if (status_.ok()) status_ = BadTokenizer(message);
    return false;
  }
  bool Entry(const Json& id) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > TokenizerFile::kMaxId) {
      return Fail(absl::StrCat("the vocabulary gives \"", token_.substr(0, 100), "\" the id ",
                               id.dump(), "; ids are whole numbers from 0 to ",
                               TokenizerFile::kMaxId));
    }
    file_->vocab.emplace_back(std::move(token_), id.get<uint32_t>());
    return false;
  }
  bool SpelledMerge(const Json& merge) {
    if (!merge.is_string()) return Fail("a merge is neither a string nor a pair of strings");
    const std::string& text = merge.get_ref<const std::string&>();
    if (text.rfind("#version", 0) == 0) return false;
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      return Fail(
          absl::StrCat("the merge \"", text.substr(0, 100), "\" has not exactly one space"));
    }
    file_->merges.emplace_back(text.substr(0, space), text.substr(space + 1));
    return false;
  }
  bool PartOfPair(const Json& part) {
    if (!part.is_string()) return Fail("a merge is no pair of strings");
    if (pair_.size() < 3) pair_.push_back(part.get<std::string>());
    return false;
  }
  bool Pair() {
    if (pair_.size() != 2) return Fail("a merge is no pair of strings");
    file_->merges.emplace_back(std::move(pair_[0]), std::move(pair_[1]));
    return false;
  }

  TokenizerFile* const file_;
  std::string top_, second_, token_;
  std::vector<std::string> pair_;
  absl::Status status_;
};

}  // namespace

absl::Status BadTokenizer(absl::string_view message) {
  return InvalidInput("INVALID_TOKENIZER", absl::StrCat("tokenizer.json: ", message));
}

absl::Status UnsupportedTokenizer(absl::string_view message) {
  return InvalidInput(
      "UNSUPPORTED_TOKENIZER",
      absl::StrCat("tokenizer.json: ", message,
                   "; tokenize the text elsewhere and give a file of token ids instead"));
}

std::string TypeOf(const Json& value) {
  if (!value.is_object()) return "";
  const auto it = value.find("type");
  return it != value.end() && it->is_string() ? it->get<std::string>() : "";
}

bool BoolOr(const Json& object, const char* name, bool fallback, absl::Status* status) {
  const auto it = object.find(name);
  if (it == object.end() || it->is_null()) return fallback;
  if (it->is_boolean()) return it->get<bool>();
  if (status->ok()) *status = BadTokenizer(absl::StrCat("\"", name, "\" is not true or false"));
  return fallback;
}

std::string StringOr(const Json& object, const char* name, const std::string& fallback,
                     absl::Status* status) {
  const auto it = object.find(name);
  if (it == object.end() || it->is_null()) return fallback;
  if (it->is_string()) return it->get<std::string>();
  if (status->ok()) *status = BadTokenizer(absl::StrCat("\"", name, "\" is no string"));
  return fallback;
}

absl::StatusOr<TokenizerFile> TokenizerFile::Parse(absl::string_view json) {
  if (json.size() > kMaxBytes) {
    return BadTokenizer(
        absl::StrCat("it has ", json.size(), " bytes; at most ", kMaxBytes, " are supported"));
  }
  TokenizerFile file;
  Collector collector(&file);
  Json rest = Json::parse(
      json.begin(), json.end(),
      [&collector](int depth, Event event, Json& value) { return collector(depth, event, value); },
      /*allow_exceptions=*/false);
  if (!collector.status().ok()) return collector.status();
  if (rest.is_discarded()) return BadTokenizer("it is not valid JSON");
  if (!rest.is_object()) return BadTokenizer("it is no JSON object");
  file.rest = std::move(rest);
  return file;
}

}  // namespace uniquanf
