// What filters, tests and methods share.
#include "worker/text/jinja_functions.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status.h"
#include "worker/text/unicode.h"

namespace uniquanf::jinja {
namespace {

absl::Status TooComplex(absl::string_view what) {
  return InvalidInput("CHAT_TEMPLATE_TOO_COMPLEX",
                      absl::StrCat("the chat template ", what, "; it is not rendered further"));
}

// A list of up to a million items costs its items' handles.
absl::StatusOr<Value> NewList(List items, bool tuple, Budget* budget) {
  UQ_RETURN_IF_ERROR(budget->Bytes(items.size() * sizeof(Value)));
  return Value::OfList(std::move(items), tuple);
}

std::vector<absl::string_view> Characters(absl::string_view text) {
  std::vector<absl::string_view> characters;
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    NextCodePoint(text, &at);
    characters.push_back(text.substr(start, at - start));
  }
  return characters;
}

}  // namespace

absl::Status Budget::Step(int64_t steps) {
  steps_ += steps;
  return steps_ <= kMaxSteps ? absl::OkStatus() : TooComplex("takes too many steps");
}

absl::Status Budget::Bytes(uint64_t bytes) {
  bytes_ += bytes;
  return bytes <= kMaxBytes && bytes_ <= kMaxBytes ? absl::OkStatus()
                                                   : TooComplex("makes too much text");
}

absl::Status Budget::Enter() {
  return ++depth_ <= kMaxDepth ? absl::OkStatus() : TooComplex("calls itself too often");
}

const Value* CallArguments::Find(size_t index, absl::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [given, value] : named) {
    if (given == name) return &value;
  }
  return nullptr;
}

bool CallArguments::Flag(size_t index, absl::string_view name, bool fallback) const {
  const Value* value = Find(index, name);
  return value == nullptr ? fallback : value->Truth();
}

absl::StatusOr<int64_t> CallArguments::Number(size_t index, absl::string_view name,
                                              int64_t fallback) const {
  const Value* value = Find(index, name);
  if (value == nullptr || value->is_none()) return fallback;
  int64_t number;
  if (value->ToInt(&number)) return number;
  return Failed(
      absl::StrCat("the argument \"", name, "\" is a ", value->TypeName(), ", not a whole number"));
}

absl::StatusOr<std::string> CallArguments::Text(size_t index, absl::string_view name,
                                                absl::string_view fallback) const {
  const Value* value = Find(index, name);
  if (value == nullptr) return std::string(fallback);
  if (value->AsString() != nullptr) return *value->AsString();
  return Failed(
      absl::StrCat("the argument \"", name, "\" is a ", value->TypeName(), ", not a string"));
}

absl::Status CallArguments::Expect(absl::string_view function,
                                   std::initializer_list<absl::string_view> names) const {
  if (positional.size() > names.size()) {
    return Failed(absl::StrCat(function, " takes at most ", names.size(), " arguments, not ",
                               positional.size()));
  }
  for (const auto& [given, value] : named) {
    if (std::find(names.begin(), names.end(), given) == names.end()) {
      return Failed(absl::StrCat(function, " has no argument \"", given, "\""));
    }
  }
  return absl::OkStatus();
}

absl::Status UndefinedError(const Value& value) {
  return Failed(absl::StrCat(value.UndefinedName(), " is undefined"));
}

absl::StatusOr<Value> NewString(std::string text, Budget* budget) {
  UQ_RETURN_IF_ERROR(budget->Bytes(text.size()));
  if (text.size() > Value::kMaxSize) return TooComplex("makes too large a text");
  return Value::String(std::move(text));
}

absl::StatusOr<List> Items(const Value& value, Budget* budget) {
  if (value.is_undefined()) return List();
  List items;
  if (value.AsList() != nullptr) {
    items = value.AsList()->items;
  } else if (value.AsDict() != nullptr) {
    for (const auto& [key, member] : value.AsDict()->entries) items.push_back(key);
  } else if (value.AsString() != nullptr) {
    UQ_RETURN_IF_ERROR(budget->Bytes(value.AsString()->size() * 64));
    for (const absl::string_view character : Characters(*value.AsString())) {
      items.push_back(Value::String(std::string(character)));
    }
  } else {
    return Failed(absl::StrCat("a value of type ", value.TypeName(), " has no items to go over"));
  }
  UQ_RETURN_IF_ERROR(budget->Bytes(items.size() * sizeof(Value)));
  return items;
}

Value AttributePath(const Value& value, absl::string_view path) {
  Value current = value;
  for (const absl::string_view part : absl::StrSplit(path, '.')) {
    int64_t index;
    const Value* member = nullptr;
    if (current.AsDict() != nullptr) {
      member = current.AsDict()->Find(part);
    } else if (current.AsList() != nullptr && absl::SimpleAtoi(part, &index)) {
      const List& items = current.AsList()->items;
      if (index >= 0 && index < static_cast<int64_t>(items.size())) member = &items[index];
    } else if (current.AsNamespace() != nullptr) {
      const auto it = current.AsNamespace()->attributes.find(part);
      if (it != current.AsNamespace()->attributes.end()) member = &it->second;
    }
    if (member == nullptr) return Value::Undefined(part);
    current = Value(*member);
  }
  return current;
}

absl::StatusOr<Value> Slice(const Value& value, const int64_t* start, const int64_t* stop,
                            int64_t step, Budget* budget) {
  if (step == 0) return Failed("the step of a slice is 0");
  std::vector<absl::string_view> characters;
  if (value.AsString() != nullptr) {
    UQ_RETURN_IF_ERROR(budget->Bytes(value.AsString()->size()));
    characters = Characters(*value.AsString());
  } else if (value.AsList() == nullptr) {
    return value.is_undefined()
               ? UndefinedError(value)
               : Failed(absl::StrCat("a value of type ", value.TypeName(), " has no slices"));
  }
  const int64_t size = static_cast<int64_t>(value.AsList() != nullptr ? value.AsList()->items.size()
                                                                      : characters.size());
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? size : size - 1;
  const auto bound = [&](const int64_t* given, int64_t fallback) {
    if (given == nullptr) return fallback;
    const int64_t at = *given < 0 ? std::max(*given, -size - 1) + size : *given;
    return std::min(std::max(at, low), high);
  };
  const int64_t first = bound(start, step > 0 ? 0 : size - 1);
  const int64_t last = bound(stop, step > 0 ? size : -1);
  std::string text;
  List items;
  for (int64_t i = first; step > 0 ? i < last : i > last;) {
    if (value.AsList() != nullptr) {
      items.push_back(value.AsList()->items[i]);
    } else {
      absl::StrAppend(&text, characters[i]);
    }
    if (step > size || step < -size) break;
    i += step;
  }
  if (value.AsList() == nullptr) return NewString(std::move(text), budget);
  return NewList(std::move(items), value.AsList()->tuple, budget);
}

absl::StatusOr<bool> Contains(const Value& container, const Value& item, Budget* budget) {
  if (container.is_undefined()) return false;
  if (const std::string* text = container.AsString()) {
    if (item.AsString() == nullptr) {
      return item.is_undefined()
                 ? UndefinedError(item)
                 : Failed(absl::StrCat("a string holds no value of type ", item.TypeName()));
    }
    UQ_RETURN_IF_ERROR(budget->Bytes(text->size()));
    return FindText(*text, *item.AsString(), 0) != absl::string_view::npos;
  }
  if (const Dict* dict = container.AsDict()) return dict->Find(item) != nullptr;
  const ListData* list = container.AsList();
  if (list == nullptr) {
    return Failed(absl::StrCat("\"in\" a value of type ", container.TypeName()));
  }
  for (const Value& member : list->items) {
    UQ_RETURN_IF_ERROR(budget->Step());
    UQ_RETURN_IF_ERROR(budget->Bytes(std::min(member.size(), item.size())));
    if (member.Equals(item)) return true;
  }
  return false;
}

absl::StatusOr<int64_t> Length(const Value& value) {
  if (value.is_undefined()) return 0;
  if (value.AsList() != nullptr) return static_cast<int64_t>(value.AsList()->items.size());
  if (value.AsDict() != nullptr) return static_cast<int64_t>(value.AsDict()->entries.size());
  if (value.AsString() == nullptr) {
    return Failed(absl::StrCat("a value of type ", value.TypeName(), " has no length"));
  }
  int64_t length = 0;
  for (const char c : *value.AsString()) length += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return length;
}

bool IsPythonSpace(char32_t c) { return IsWhitespace(c) || (c >= 0x1C && c <= 0x1F); }

std::string Lower(absl::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) AppendLowercase(NextCodePoint(text, &at), &out);
  return out;
}

std::string Upper(absl::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) AppendUppercase(NextCodePoint(text, &at), &out);
  return out;
}

absl::string_view Strip(absl::string_view text, bool left, bool right) {
  while (left && !text.empty()) {
    size_t at = 0;
    if (!IsPythonSpace(NextCodePoint(text, &at))) break;
    text.remove_prefix(at);
  }
  while (right && !text.empty()) {
    const char32_t c = PreviousCodePoint(text, text.size());
    if (!IsPythonSpace(c)) break;
    std::string last;
    AppendCodePoint(c, &last);
    text.remove_suffix(last.size());
  }
  return text;
}

size_t FindText(absl::string_view text, absl::string_view part, size_t from) {
  if (from > text.size()) return absl::string_view::npos;
  // memmem is the two-way algorithm; std::string::find is quadratic at worst.
  const void* found = memmem(text.data() + from, text.size() - from, part.data(), part.size());
  return found == nullptr ? absl::string_view::npos
                          : static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

absl::StatusOr<std::string> ReplaceText(absl::string_view text, absl::string_view from,
                                        absl::string_view to, int64_t count, Budget* budget) {
  std::string out;
  size_t done = 0, at = 0;
  while (count != 0) {
    const size_t found = from.empty() ? at : FindText(text, from, at);
    if (found == absl::string_view::npos || found > text.size()) break;
    UQ_RETURN_IF_ERROR(budget->Bytes(to.size() + 1));
    absl::StrAppend(&out, text.substr(done, found - done), to);
    done = found + from.size();
    at = done;
    if (from.empty()) {  // between all characters
      if (done == text.size()) {
        at = text.size() + 1;
      } else {
        NextCodePoint(text, &at);
      }
    }
    if (count > 0) --count;
  }
  absl::StrAppend(&out, text.substr(std::min(done, text.size())));
  return out;
}

}  // namespace uniquanf::jinja
