#include "worker/text/regex.h"

#include <oniguruma.h>

#include <mutex>
#include <utility>
#include <vector>

#include "common/base/status.h"

namespace uniquanf {
namespace {

// A run of ten million characters is matched; what backtracks more is given up.
constexpr unsigned long kRetryLimit = 20'000'000;
constexpr unsigned int kStackLimit = 20'000'000;

const OnigUChar* Begin(absl::string_view text) {
  return reinterpret_cast<const OnigUChar*>(text.data());
}

std::string ErrorText(int code, OnigErrorInfo* info) {
  OnigUChar buffer[ONIG_MAX_ERROR_MESSAGE_LEN];
  const int length = onig_error_code_to_str(buffer, code, info);
  return std::string(reinterpret_cast<const char*>(buffer), length);
}

// Compiling writes state of the library's own.
std::mutex& CompileMutex() {
  static std::mutex mutex;
  return mutex;
}

}  // namespace

struct Regex::Impl {
  regex_t* regex = nullptr;
  ~Impl() {
    if (regex != nullptr) onig_free(regex);
  }
};

Regex::Regex() : impl_(std::make_unique<Impl>()) {}
Regex::~Regex() = default;

absl::StatusOr<std::shared_ptr<const Regex>> Regex::Compile(absl::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return InvalidInput("INVALID_TOKENIZER",
                        absl::StrCat("a pattern has ", pattern.size(), " bytes; at most ",
                                     kMaxPatternBytes, " are supported"));
  }
  std::shared_ptr<Regex> regex(new Regex());
  regex->pattern_ = std::string(pattern);
  regex->search_only_ = pattern.find("\\G") != absl::string_view::npos;
  OnigErrorInfo info{};
  int code;
  {
    const std::lock_guard<std::mutex> lock(CompileMutex());
    static const int initialized = [] {
      OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
      return onig_initialize(encodings, 1);
    }();
    if (initialized != ONIG_NORMAL) return absl::InternalError("the regex engine does not start");
    code = onig_new(&regex->impl_->regex, Begin(pattern), Begin(pattern) + pattern.size(),
                    ONIG_OPTION_NONE, ONIG_ENCODING_UTF8, ONIG_SYNTAX_DEFAULT, &info);
  }
  if (code != ONIG_NORMAL) {
    regex->impl_->regex = nullptr;
    return InvalidInput("INVALID_TOKENIZER",
                        absl::StrCat("the pattern \"", pattern.substr(0, 200),
                                     "\" cannot be used: ", ErrorText(code, &info)));
  }
  return regex;
}

struct RegexMatches::Scratch {
  OnigRegion* region = onig_region_new();
  OnigMatchParam* param = onig_new_match_param();
  Scratch() {
    onig_initialize_match_param(param);
    onig_set_retry_limit_in_match_of_match_param(param, kRetryLimit);
    onig_set_retry_limit_in_search_of_match_param(param, kRetryLimit);
    onig_set_match_stack_limit_size_of_match_param(param, kStackLimit);
  }
  ~Scratch() {
    onig_region_free(region, 1);
    onig_free_match_param(param);
  }
  struct Pool {
    std::vector<Scratch*> free;
    ~Pool() {
      for (Scratch* scratch : free) delete scratch;
    }
  };
  static Pool& ThreadPool() {
    thread_local Pool pool;
    return pool;
  }
};

RegexMatches::RegexMatches(const Regex& regex, absl::string_view text)
    : regex_(regex), text_(text) {
  auto& free = Scratch::ThreadPool().free;
  if (free.empty()) {
    scratch_ = new Scratch();
  } else {
    scratch_ = free.back();
    free.pop_back();
  }
}

RegexMatches::~RegexMatches() { Scratch::ThreadPool().free.push_back(scratch_); }

bool RegexMatches::Next() {
  const OnigUChar* const begin = Begin(text_);
  const OnigUChar* const end = begin + text_.size();
  regex_t* const regex = regex_.impl_->regex;
  while (from_ <= text_.size()) {
    // Patterns of tokenizers match nearly everywhere: trying where the last match ended is cheaper
    // than a search, and the same when it succeeds.
    int code = ONIG_MISMATCH;
    if (!regex_.search_only_) {
      code = onig_match_with_param(regex, begin, end, begin + from_, scratch_->region,
                                   ONIG_OPTION_NONE, scratch_->param);
      if (code >= 0) code = static_cast<int>(from_);
    }
    if (code == ONIG_MISMATCH) {
      code = onig_search_with_param(regex, begin, end, begin + from_, end, scratch_->region,
                                    ONIG_OPTION_NONE, scratch_->param);
    }
    if (code == ONIG_MISMATCH) return false;
    if (code < 0) {
      status_ = InvalidInput(
          "TEXT_TOO_COMPLEX",
          absl::StrCat("matching the tokenizer's pattern gave up at byte ", from_, " of a text of ",
                       text_.size(), " bytes (", ErrorText(code, nullptr),
                       "); split the text into smaller documents"));
      return false;
    }
    start_ = scratch_->region->beg[0];
    end_ = scratch_->region->end[0];
    if (start_ == end_ && end_ == last_end_) {
      if (from_ >= text_.size()) return false;
      do {
        ++from_;
      } while (from_ < text_.size() && (text_[from_] & 0xC0) == 0x80);
      continue;
    }
    from_ = last_end_ = end_;
    return true;
  }
  return false;
}

}  // namespace uniquanf
