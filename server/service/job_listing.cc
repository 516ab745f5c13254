#include "server/service/job_listing.h"

#include <algorithm>
#include <functional>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/digest.h"
#include "common/base/status.h"
#include "common/base/violations.h"
#include "server/service/resource_names.h"

namespace uniquanf::server {
namespace {

constexpr int32_t kDefaultPageSize = 50;

absl::Status BadFilter(absl::string_view what) {
  return InvalidField(
      "INVALID_FILTER", "filter",
      absl::StrCat("filter: ", what,
                   "; terms joined by AND and OR (which binds tighter) are allowed: state=RUNNING, "
                   "tenant=\"x\", device=cpu, priority>0, labels.key=\"v\", "
                   "create_time>\"2026-01-31T12:00:00Z\", update_time likewise, and != also"));
}

// Reads one token: a quoted string, an operator, or a word.
struct Token {
  enum Kind { kWord, kString, kOperator, kEnd } kind = kEnd;
  std::string text;
};
absl::StatusOr<Token> NextToken(absl::string_view* rest) {
  *rest = absl::StripLeadingAsciiWhitespace(*rest);
  if (rest->empty()) return Token{};
  const char first = rest->front();
  if (first == '"') {
    std::string text;
    for (size_t i = 1; i < rest->size(); ++i) {
      const char c = (*rest)[i];
      if (c == '"') {
        rest->remove_prefix(i + 1);
        return Token{Token::kString, text};
      }
      if (c == '\\' && i + 1 < rest->size()) {
        text.push_back((*rest)[++i]);
      } else {
        text.push_back(c);
      }
    }
    return BadFilter("a quote is not closed");
  }
  const absl::string_view operators = "=!<>";
  size_t end = 0;
  const bool is_operator = absl::StrContains(operators, first);
  while (end < rest->size() && !absl::ascii_isspace((*rest)[end]) && (*rest)[end] != '"' &&
         absl::StrContains(operators, (*rest)[end]) == is_operator) {
    ++end;
  }
  Token token{is_operator ? Token::kOperator : Token::kWord, std::string(rest->substr(0, end))};
  rest->remove_prefix(end);
  return token;
}

template <typename T>
bool Compare(int op, const T& a, const T& b) {
  switch (op) {
    case 0:
      return a == b;
    case 1:
      return !(a == b);
    case 2:
      return a < b;
    case 3:
      return !(b < a);
    case 4:
      return b < a;
    default:
      return !(a < b);
  }
}

}  // namespace

absl::StatusOr<JobFilter> JobFilter::Parse(absl::string_view text) {
  JobFilter filter;
  if (text.size() > 4096) return BadFilter("longer than 4096 bytes");
  absl::string_view rest = text;
  bool first = true, joined_by_or = false;
  while (true) {
    UQ_ASSIGN_OR_RETURN(Token field, NextToken(&rest));
    if (field.kind == Token::kEnd) {
      if (first) return filter;
      return BadFilter(joined_by_or ? "it ends after OR" : "it ends after AND");
    }
    UQ_ASSIGN_OR_RETURN(Token op, NextToken(&rest));
    UQ_ASSIGN_OR_RETURN(Token value, NextToken(&rest));
    if (field.kind != Token::kWord || op.kind != Token::kOperator ||
        (value.kind != Token::kWord && value.kind != Token::kString)) {
      return BadFilter(absl::StrCat("no term at ", Quoted(field.text)));
    }
    Term term;
    static constexpr absl::string_view kOperators[] = {"=", "!=", "<", "<=", ">", ">="};
    const auto found = std::find(std::begin(kOperators), std::end(kOperators), op.text);
    if (found == std::end(kOperators)) {
      return BadFilter(absl::StrCat("unknown operator ", Quoted(op.text)));
    }
    term.op = static_cast<Operator>(found - std::begin(kOperators));
    term.text = value.text;
    bool ordered = false;
    if (field.text == "state") {
      term.field = Field::kState;
      value.text = absl::AsciiStrToUpper(value.text);
      term.text = value.text;
      bool known = false;
      for (int i = 1; i <= kNumJobStates; ++i) {
        known = known || value.text == JobStateName(static_cast<JobState>(i));
      }
      if (!known) return BadFilter(absl::StrCat("unknown state ", Quoted(value.text)));
    } else if (field.text == "tenant") {
      term.field = Field::kTenant;
    } else if (field.text == "device") {
      term.field = Field::kDevice;
    } else if (absl::StartsWith(field.text, "labels.") && field.text.size() > 7) {
      term.field = Field::kLabel;
      term.label = field.text.substr(7);
    } else if (field.text == "priority") {
      term.field = Field::kPriority;
      ordered = true;
      if (!absl::SimpleAtoi(value.text, &term.number)) {
        return BadFilter(absl::StrCat("priority ", Quoted(value.text), " is not a number"));
      }
    } else if (field.text == "create_time" || field.text == "update_time") {
      term.field = field.text == "create_time" ? Field::kCreateTime : Field::kUpdateTime;
      ordered = true;
      std::string error;
      if (!absl::ParseTime(absl::RFC3339_full, value.text, &term.time, &error)) {
        return BadFilter(
            absl::StrCat(field.text, " ", Quoted(value.text), " is not a time of RFC 3339"));
      }
    } else {
      return BadFilter(absl::StrCat("unknown field ", Quoted(field.text)));
    }
    if (!ordered && term.op != Operator::kEqual && term.op != Operator::kNotEqual) {
      return BadFilter(absl::StrCat(field.text, " takes = and != only"));
    }
    if (first || !joined_by_or) filter.clauses_.emplace_back();
    filter.clauses_.back().push_back(std::move(term));
    first = false;
    UQ_ASSIGN_OR_RETURN(Token joint, NextToken(&rest));
    if (joint.kind == Token::kEnd) return filter;
    joined_by_or = joint.kind == Token::kWord && joint.text == "OR";
    if (!joined_by_or && (joint.kind != Token::kWord || joint.text != "AND")) {
      return BadFilter(absl::StrCat("AND or OR is expected before ", Quoted(joint.text)));
    }
  }
}

bool JobFilter::Holds(const Term& term, const Job& job) {
  const int op = static_cast<int>(term.op);
  switch (term.field) {
    case Field::kState:
      return Compare(op, std::string(JobStateName(job.state)), term.text);
    case Field::kTenant:
      return Compare(op, job.tenant, term.text);
    case Field::kDevice:
      return Compare(op, job.device, term.text);
    case Field::kLabel: {
      const auto it = job.labels.find(term.label);
      return it == job.labels.end() ? term.op == Operator::kNotEqual
                                    : Compare(op, it->second, term.text);
    }
    case Field::kPriority:
      return Compare(op, int64_t{job.priority}, term.number);
    case Field::kCreateTime:
      return Compare(op, job.create_time, term.time);
    case Field::kUpdateTime:
      return Compare(op, job.update_time, term.time);
  }
  return false;
}

bool JobFilter::Matches(const Job& job) const {
  return std::all_of(clauses_.begin(), clauses_.end(), [&](const std::vector<Term>& clause) {
    return std::any_of(clause.begin(), clause.end(),
                       [&](const Term& term) { return Holds(term, job); });
  });
}

absl::StatusOr<int32_t> CheckPageSize(int32_t page_size) {
  if (page_size < 0) {
    return InvalidField("INVALID_REQUEST", "page_size",
                        absl::StrCat("page_size ", page_size, " is negative"));
  }
  return page_size == 0 ? kDefaultPageSize : std::min(page_size, kMaxPageSize);
}

std::string MakePageToken(absl::string_view scope, absl::string_view last_key) {
  return absl::WebSafeBase64Escape(absl::StrCat(Sha256Hex(scope).substr(0, 16), "|", last_key));
}

absl::StatusOr<std::string> ParsePageToken(absl::string_view scope, absl::string_view token) {
  std::string text;
  if (token.size() > 4096 || !absl::WebSafeBase64Unescape(token, &text) || text.size() < 17 ||
      text[16] != '|') {
    return InvalidField("INVALID_PAGE_TOKEN", "page_token",
                        "page_token is not one that this server gave; start without one");
  }
  if (text.substr(0, 16) != Sha256Hex(scope).substr(0, 16)) {
    return InvalidField("INVALID_PAGE_TOKEN", "page_token",
                        "page_token belongs to a request of another caller, or with another "
                        "filter, order or parent; "
                        "repeat that request's, or start without a token");
  }
  return text.substr(17);
}

absl::StatusOr<Page> ListPage(std::vector<std::shared_ptr<const Job>> jobs,
                              absl::string_view filter_text, absl::string_view order_by,
                              int32_t page_size, absl::string_view page_token,
                              absl::string_view whose) {
  UQ_ASSIGN_OR_RETURN(const JobFilter filter, JobFilter::Parse(filter_text));
  UQ_ASSIGN_OR_RETURN(const int32_t size, CheckPageSize(page_size));
  // A position is (primary, seq or id); every order is total.
  using Key = std::pair<int64_t, std::string>;
  std::function<Key(const Job&)> key_of;
  const auto padded = [](uint64_t value) {
    std::string digits = absl::StrCat(value);
    return std::string(20 - digits.size(), '0') + digits;
  };
  const std::string order(absl::StripAsciiWhitespace(order_by));
  if (order.empty() || order == "create_time desc") {
    key_of = [](const Job& job) { return Key{-static_cast<int64_t>(job.seq), ""}; };
  } else if (order == "create_time" || order == "create_time asc") {
    key_of = [](const Job& job) { return Key{static_cast<int64_t>(job.seq), ""}; };
  } else if (order == "priority desc") {
    key_of = [padded](const Job& job) { return Key{-job.priority, padded(job.seq)}; };
  } else if (order == "name" || order == "name asc") {
    key_of = [](const Job& job) { return Key{0, job.id}; };
  } else {
    return InvalidField("INVALID_ORDER", "order_by",
                        absl::StrCat("order_by ", Quoted(order_by),
                                     " is not \"create_time desc\", \"create_time\", "
                                     "\"priority desc\" or \"name\""));
  }
  const std::string scope =
      absl::StrCat("jobs\n", filter_text, "\n", order, whose.empty() ? "" : "\n", whose);
  std::optional<Key> after;
  if (!page_token.empty()) {
    UQ_ASSIGN_OR_RETURN(const std::string position, ParsePageToken(scope, page_token));
    const std::vector<std::string> parts = absl::StrSplit(position, absl::MaxSplits(',', 1));
    Key key;
    if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &key.first)) {
      return InvalidField("INVALID_PAGE_TOKEN", "page_token",
                          "page_token is not one that this server gave; start without one");
    }
    key.second = parts[1];
    after = key;
  }
  std::vector<std::pair<Key, std::shared_ptr<const Job>>> found;
  for (auto& job : jobs) {
    if (!filter.Matches(*job)) continue;
    Key key = key_of(*job);
    if (after.has_value() && !(*after < key)) continue;
    found.push_back({std::move(key), std::move(job)});
  }
  const auto less = [](const auto& a, const auto& b) { return a.first < b.first; };
  const size_t count = std::min(found.size(), static_cast<size_t>(size));
  std::partial_sort(found.begin(), found.begin() + count, found.end(), less);
  Page page;
  for (size_t i = 0; i < count; ++i) page.jobs.push_back(found[i].second);
  if (found.size() > count && count > 0) {
    const Key& last = found[count - 1].first;
    page.next_page_token = MakePageToken(scope, absl::StrCat(last.first, ",", last.second));
  }
  return page;
}

}  // namespace uniquanf::server
