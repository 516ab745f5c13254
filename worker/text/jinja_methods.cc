// Methods: value.name(arguments), as Python's strings, lists and dictionaries have them.
#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/text/jinja_functions.h"
#include "worker/text/unicode.h"

namespace uniquanf::jinja {
namespace {

using Result = absl::StatusOr<Value>;
using Method = Result (*)(const Value& self, const CallArguments& arguments, Budget* budget);

// Where the character starts that ends at `end` > 0.
size_t CharacterBefore(absl::string_view text, size_t end) {
  size_t start = end - 1;
  while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
  return start;
}

// Takes away characters of a set, or white ones.
absl::string_view StripCharacters(absl::string_view text, const std::string* set, bool left,
                                  bool right) {
  if (set == nullptr) return Strip(text, left, right);
  const auto in_set = [set](char32_t c) {
    for (size_t at = 0; at < set->size();) {
      if (NextCodePoint(*set, &at) == c) return true;
    }
    return false;
  };
  while (left && !text.empty()) {
    size_t at = 0;
    if (!in_set(NextCodePoint(text, &at))) break;
    text.remove_prefix(at);
  }
  while (right && !text.empty()) {
    const size_t last = CharacterBefore(text, text.size());
    size_t at = last;
    if (!in_set(NextCodePoint(text, &at))) break;
    text.remove_suffix(text.size() - last);
  }
  return text;
}

template <bool kLeft, bool kRight>
Result StripMethod(const Value& self, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("strip", {"chars"}));
  const Value* set = arguments.Find(0, "chars");
  const bool given = set != nullptr && !set->is_none();
  if (given && set->AsString() == nullptr) return Failed("strip takes a string");
  if (given) {
    UQ_RETURN_IF_ERROR(budget->Bytes((set->size() + 1) * self.size()));
  }
  return NewString(std::string(StripCharacters(*self.AsString(), given ? set->AsString() : nullptr,
                                               kLeft, kRight)),
                   budget);
}

// Of one string or any of a tuple.
template <bool kStart>
Result HasAffix(const Value& self, const CallArguments& arguments, Budget*) {
  UQ_RETURN_IF_ERROR(arguments.Expect("startswith and endswith", {"prefix"}));
  const Value* given = arguments.Find(0, "prefix");
  if (given == nullptr) return Failed("startswith and endswith take a string");
  const List one = {*given};
  for (const Value& affix : given->AsList() != nullptr ? given->AsList()->items : one) {
    if (affix.AsString() == nullptr) {
      return affix.is_undefined() ? UndefinedError(affix)
                                  : Failed("startswith and endswith take a string or a tuple");
    }
    if (kStart ? absl::StartsWith(*self.AsString(), *affix.AsString())
               : absl::EndsWith(*self.AsString(), *affix.AsString())) {
      return Value::Bool(true);
    }
  }
  return Value::Bool(false);
}

Result MakeList(const std::vector<absl::string_view>& parts, Budget* budget) {
  List items;
  for (const absl::string_view part : parts) {
    UQ_RETURN_IF_ERROR(budget->Bytes(part.size() + sizeof(Value)));
    items.push_back(Value::String(std::string(part)));
  }
  return Value::OfList(std::move(items));
}

// From the left, or from the right; runs of white space where there is no separator.
template <bool kRight>
Result Split(const Value& self, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("split", {"sep", "maxsplit"}));
  const Value* given = arguments.Find(0, "sep");
  UQ_ASSIGN_OR_RETURN(int64_t left, arguments.Number(1, "maxsplit", -1));
  absl::string_view text = *self.AsString();
  std::vector<absl::string_view> parts;
  UQ_RETURN_IF_ERROR(budget->Copy(self));
  if (given == nullptr || given->is_none()) {
    text = Strip(text, !kRight, kRight);
    while (!text.empty()) {
      size_t end = kRight ? text.size() : 0;
      while (kRight ? end > 0 : end < text.size()) {
        size_t at = end;
        if (kRight) at = CharacterBefore(text, end);
        const size_t before = at;
        if (IsPythonSpace(NextCodePoint(text, &at))) break;
        end = kRight ? before : at;
      }
      if (left-- == 0) end = kRight ? 0 : text.size();
      parts.push_back(kRight ? text.substr(end) : text.substr(0, end));
      text = kRight ? text.substr(0, end) : text.substr(end);
      text = Strip(text, !kRight, kRight);
    }
  } else {
    if (given->AsString() == nullptr || given->AsString()->empty()) {
      return Failed("split takes a separator that is a string and not empty");
    }
    const std::string& separator = *given->AsString();
    // From the right it is the plain search.
    if (kRight) UQ_RETURN_IF_ERROR(budget->Bytes(text.size() * separator.size()));
    while (left-- != 0) {
      const size_t at = kRight ? text.rfind(separator) : FindText(text, separator, 0);
      if (at == absl::string_view::npos) break;
      parts.push_back(kRight ? text.substr(at + separator.size()) : text.substr(0, at));
      text = kRight ? text.substr(0, at) : text.substr(at + separator.size());
    }
    parts.push_back(text);
  }
  if (kRight) std::reverse(parts.begin(), parts.end());
  return MakeList(parts, budget);
}

Result SplitLines(const Value& self, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("splitlines", {"keepends"}));
  const bool keep = arguments.Flag(0, "keepends", false);
  absl::string_view text = *self.AsString();
  std::vector<absl::string_view> parts;
  while (!text.empty()) {
    const size_t end = std::min(text.find_first_of("\n\r\v\f\x1c\x1d\x1e"), text.size());
    size_t next = std::min(end + 1, text.size());
    if (end + 1 < text.size() && text[end] == '\r' && text[end + 1] == '\n') ++next;
    parts.push_back(text.substr(0, keep ? next : end));
    text.remove_prefix(next);
  }
  return MakeList(parts, budget);
}

Result Replace(const Value& self, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("replace", {"old", "new", "count"}));
  if (arguments.Find(1, "new") == nullptr) return Failed("replace takes two strings");
  return ApplyFilter("replace", self, arguments, budget);
}

// A filter of the same name and meaning.
template <const char* kName>
Result AsFilter(const Value& self, const CallArguments& arguments, Budget* budget) {
  return ApplyFilter(kName, self, arguments, budget);
}
constexpr char kUpper[] = "upper", kLower[] = "lower", kTitle[] = "title",
               kCapitalize[] = "capitalize";

Result Join(const Value& self, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("join", {"iterable"}));
  const Value* items = arguments.Find(0, "iterable");
  if (items == nullptr) return Failed("join takes a list");
  CallArguments separator;
  separator.positional.push_back(self);
  return ApplyFilter("join", *items, separator, budget);
}

// In characters; -1 where it is not.
template <bool kRight>
Result Find(const Value& self, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("find", {"sub"}));
  UQ_ASSIGN_OR_RETURN(const std::string part, arguments.Text(0, "sub", ""));
  const std::string& text = *self.AsString();
  UQ_RETURN_IF_ERROR(budget->Bytes((kRight ? part.size() + 1 : 1) * text.size()));
  const size_t at = kRight ? text.rfind(part) : FindText(text, part, 0);
  if (at == std::string::npos) return Value::Int(-1);
  UQ_ASSIGN_OR_RETURN(const int64_t characters, Length(Value::String(text.substr(0, at))));
  return Value::Int(characters);
}

Result Count(const Value& self, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("count", {"sub"}));
  UQ_ASSIGN_OR_RETURN(const std::string part, arguments.Text(0, "sub", ""));
  UQ_RETURN_IF_ERROR(budget->Copy(self));
  if (part.empty()) return Failed("count takes a string that is not empty");
  int64_t count = 0;
  size_t at = 0;
  while ((at = FindText(*self.AsString(), part, at)) != absl::string_view::npos) {
    ++count;
    at += part.size();
  }
  return Value::Int(count);
}

template <bool kStart>
Result RemoveAffix(const Value& self, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("removeprefix and removesuffix", {"affix"}));
  UQ_ASSIGN_OR_RETURN(const std::string affix, arguments.Text(0, "affix", ""));
  absl::string_view text = *self.AsString();
  if (kStart && absl::StartsWith(text, affix)) text.remove_prefix(affix.size());
  if (!kStart && absl::EndsWith(text, affix)) text.remove_suffix(affix.size());
  return NewString(std::string(text), budget);
}

Result IsDigit(const Value& self, const CallArguments& arguments, Budget*) {
  UQ_RETURN_IF_ERROR(arguments.Expect("isdigit", {}));
  const std::string& text = *self.AsString();
  return Value::Bool(!text.empty() && std::all_of(text.begin(), text.end(),
                                                  [](char c) { return c >= '0' && c <= '9'; }));
}

Result IsSpace(const Value& self, const CallArguments& arguments, Budget*) {
  UQ_RETURN_IF_ERROR(arguments.Expect("isspace", {}));
  return Value::Bool(!self.AsString()->empty() && Strip(*self.AsString(), true, false).empty());
}

Result Get(const Value& self, const CallArguments& arguments, Budget*) {
  UQ_RETURN_IF_ERROR(arguments.Expect("get", {"key", "default"}));
  const Value* key = arguments.Find(0, "key");
  if (key == nullptr) return Failed("get takes a key");
  const Value* value = self.AsDict()->Find(*key);
  const Value* fallback = arguments.Find(1, "default");
  return value != nullptr ? *value : fallback != nullptr ? *fallback : Value::None();
}

Result DictItems(const Value& self, const CallArguments& arguments, Budget* budget) {
  return ApplyFilter("items", self, arguments, budget);
}
Result Keys(const Value& self, const CallArguments& arguments, Budget* budget) {
  return ApplyFilter("list", self, arguments, budget);
}
Result Values(const Value& self, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("values", {}));
  List values;
  for (const auto& [key, value] : self.AsDict()->entries) values.push_back(value);
  UQ_RETURN_IF_ERROR(budget->Bytes(values.size() * sizeof(Value)));
  return Value::OfList(std::move(values));
}

Result Copy(const Value& self, const CallArguments& arguments, Budget*) {
  UQ_RETURN_IF_ERROR(arguments.Expect("copy", {}));
  return self;
}

Result Index(const Value& self, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("index", {"value"}));
  const Value* wanted = arguments.Find(0, "value");
  if (wanted == nullptr) return Failed("index takes a value");
  const List& items = self.AsList()->items;
  for (size_t i = 0; i < items.size(); ++i) {
    UQ_RETURN_IF_ERROR(budget->Step());
    UQ_RETURN_IF_ERROR(budget->Bytes(std::min(items[i].size(), wanted->size())));
    if (items[i].Equals(*wanted)) return Value::Int(static_cast<int64_t>(i));
  }
  return Failed("index: the list has no such item");
}

Result Mutation(const Value&, const CallArguments&, Budget*) {
  return Failed("lists and dictionaries cannot be changed; templates run in a sandbox");
}

using MethodTable = absl::flat_hash_map<absl::string_view, Method>;

const MethodTable* MethodsOf(const Value& value) {
  static const auto* const strings = new MethodTable{
      {"strip", StripMethod<true, true>},
      {"lstrip", StripMethod<true, false>},
      {"rstrip", StripMethod<false, true>},
      {"startswith", HasAffix<true>},
      {"endswith", HasAffix<false>},
      {"split", Split<false>},
      {"rsplit", Split<true>},
      {"splitlines", SplitLines},
      {"replace", Replace},
      {"upper", AsFilter<kUpper>},
      {"lower", AsFilter<kLower>},
      {"title", AsFilter<kTitle>},
      {"capitalize", AsFilter<kCapitalize>},
      {"join", Join},
      {"find", Find<false>},
      {"rfind", Find<true>},
      {"count", Count},
      {"removeprefix", RemoveAffix<true>},
      {"removesuffix", RemoveAffix<false>},
      {"isdigit", IsDigit},
      {"isspace", IsSpace},
  };
  static const auto* const dicts = new MethodTable{
      {"get", Get},          {"copy", Copy},      {"items", DictItems},
      {"keys", Keys},        {"values", Values},  {"pop", Mutation},
      {"update", Mutation},  {"clear", Mutation}, {"setdefault", Mutation},
      {"popitem", Mutation},
  };
  static const auto* const lists = new MethodTable{
      {"index", Index},      {"copy", Copy},       {"append", Mutation}, {"insert", Mutation},
      {"extend", Mutation},  {"remove", Mutation}, {"pop", Mutation},    {"clear", Mutation},
      {"reverse", Mutation}, {"sort", Mutation},
  };
  if (value.AsString() != nullptr) return strings;
  if (value.AsDict() != nullptr) return dicts;
  return value.AsList() != nullptr ? lists : nullptr;
}

}  // namespace

bool HasMethod(const Value& value, absl::string_view name) {
  const MethodTable* methods = MethodsOf(value);
  return methods != nullptr && methods->contains(name);
}

absl::StatusOr<Value> CallMethod(absl::string_view name, const Value& value,
                                 const CallArguments& arguments, Budget* budget) {
  return MethodsOf(value)->at(name)(value, arguments, budget);
}

}  // namespace uniquanf::jinja
