// Filters of lists and dictionaries.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/text/jinja_filter_table.h"

namespace uniquanf::jinja {
namespace {

using Result = absl::StatusOr<Value>;

Result MakeList(List items, Budget* budget) {
  UQ_RETURN_IF_ERROR(budget->Bytes(items.size() * sizeof(Value)));
  return Value::OfList(std::move(items));
}

// What comes behind the first `skip` positional arguments.
CallArguments Rest(const CallArguments& arguments, size_t skip) {
  CallArguments rest;
  rest.named = arguments.named;
  if (arguments.positional.size() > skip) {
    rest.positional.assign(arguments.positional.begin() + skip, arguments.positional.end());
  }
  return rest;
}

// An attribute by name, path or index.
absl::StatusOr<std::string> AttributeName(const Value& name) {
  int64_t index;
  if (name.AsString() != nullptr) return *name.AsString();
  if (name.ToInt(&index)) return absl::StrCat(index);
  return Failed(absl::StrCat("an attribute's name is a ", name.TypeName()));
}

// select, reject, selectattr and rejectattr: keeps the items whose test gives `keep`.
template <bool kKeep, bool kAttribute>
Result Select(const Value& value, const CallArguments& arguments, Budget* budget) {
  UQ_ASSIGN_OR_RETURN(const List items, Items(value, budget));
  std::string attribute;
  if (kAttribute) {
    if (arguments.positional.empty()) return Failed("selectattr and rejectattr need an attribute");
    UQ_ASSIGN_OR_RETURN(attribute, AttributeName(arguments.positional[0]));
  }
  const CallArguments test = Rest(arguments, kAttribute ? 1 : 0);
  UQ_ASSIGN_OR_RETURN(const std::string name, test.Text(0, "", ""));
  const CallArguments rest = Rest(test, 1);
  List kept;
  for (const Value& item : items) {
    UQ_RETURN_IF_ERROR(budget->Step());
    const Value operand = kAttribute ? AttributePath(item, attribute) : item;
    bool passes = operand.Truth();
    if (!name.empty()) {
      UQ_ASSIGN_OR_RETURN(passes, ApplyTest(name, operand, rest, budget));
    }
    if (passes == kKeep) kept.push_back(item);
  }
  return MakeList(std::move(kept), budget);
}

Result Map(const Value& value, const CallArguments& arguments, Budget* budget) {
  UQ_ASSIGN_OR_RETURN(const List items, Items(value, budget));
  List mapped;
  const Value* attribute = arguments.positional.empty() ? arguments.Find(0, "attribute") : nullptr;
  if (attribute != nullptr) {
    UQ_RETURN_IF_ERROR(arguments.Expect("map", {"attribute", "default"}));
    UQ_ASSIGN_OR_RETURN(const std::string path, AttributeName(*attribute));
    const Value* fallback = arguments.Find(1, "default");
    for (const Value& item : items) {
      UQ_RETURN_IF_ERROR(budget->Step());
      Value member = AttributePath(item, path);
      mapped.push_back(member.is_undefined() && fallback != nullptr ? *fallback : member);
    }
    return MakeList(std::move(mapped), budget);
  }
  UQ_ASSIGN_OR_RETURN(const std::string filter, arguments.Text(0, "", ""));
  const CallArguments rest = Rest(arguments, 1);
  for (const Value& item : items) {
    UQ_RETURN_IF_ERROR(budget->Step());
    UQ_ASSIGN_OR_RETURN(Value result, ApplyFilter(filter, item, rest, budget));
    mapped.push_back(std::move(result));
  }
  return MakeList(std::move(mapped), budget);
}

Result Join(const Value& value, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("join", {"d", "attribute"}));
  UQ_ASSIGN_OR_RETURN(const List items, Items(value, budget));
  const Value* given = arguments.Find(0, "d");
  const std::string separator = given == nullptr ? "" : given->Str();
  const Value* attribute = arguments.Find(1, "attribute");
  std::string path;
  if (attribute != nullptr && !attribute->is_none()) {
    UQ_ASSIGN_OR_RETURN(path, AttributeName(*attribute));
  }
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    const Value item = path.empty() ? items[i] : AttributePath(items[i], path);
    UQ_RETURN_IF_ERROR(budget->Bytes(item.size() + separator.size()));
    absl::StrAppend(&out, i == 0 ? "" : separator, item.Str());
  }
  return NewString(std::move(out), budget);
}

Result ListFilter(const Value& value, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("list", {}));
  UQ_ASSIGN_OR_RETURN(List items, Items(value, budget));
  return MakeList(std::move(items), budget);
}

template <bool kFirst>
Result End(const Value& value, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("first and last", {}));
  UQ_ASSIGN_OR_RETURN(const List items, Items(value, budget));
  if (items.empty()) return Value::Undefined(kFirst ? "the first item" : "the last item");
  return kFirst ? items.front() : items.back();
}

Result Reverse(const Value& value, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("reverse", {}));
  if (value.AsString() != nullptr) return Slice(value, nullptr, nullptr, -1, budget);
  UQ_ASSIGN_OR_RETURN(List items, Items(value, budget));
  std::reverse(items.begin(), items.end());
  return MakeList(std::move(items), budget);
}

// A list or tuple of two.
Result Pair(const Value& key, const Value& value) { return Value::OfList({key, value}, true); }

Result ItemsFilter(const Value& value, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("items", {}));
  List pairs;
  if (!value.is_undefined()) {
    if (value.AsDict() == nullptr) {
      return Failed(absl::StrCat("items of a value of type ", value.TypeName()));
    }
    for (const auto& [key, member] : value.AsDict()->entries) {
      UQ_ASSIGN_OR_RETURN(Value pair, Pair(key, member));
      pairs.push_back(std::move(pair));
    }
  }
  return MakeList(std::move(pairs), budget);
}

// What items are ordered and told apart by: an attribute, without case where that is asked for.
Value SortKey(const Value& item, const std::string& path, bool case_sensitive) {
  Value key = path.empty() ? item : AttributePath(item, path);
  if (!case_sensitive && key.AsString() != nullptr) return Value::String(Lower(*key.AsString()));
  return key;
}

Result SortItems(List items, const std::string& path, bool case_sensitive, bool reverse,
                 Budget* budget) {
  UQ_RETURN_IF_ERROR(budget->Step(static_cast<int64_t>(items.size()) * 20));
  std::vector<std::pair<Value, Value>> keyed;
  for (Value& item : items) {
    Value key = SortKey(item, path, case_sensitive);
    UQ_RETURN_IF_ERROR(budget->Bytes(key.size() * 20));
    double number;
    const bool text = key.AsString() != nullptr;
    if ((!text && !key.ToDouble(&number)) ||
        (!keyed.empty() && text != (keyed[0].first.AsString() != nullptr))) {
      return Failed("sorting takes strings or numbers, not both and nothing else");
    }
    keyed.emplace_back(std::move(key), std::move(item));
  }
  std::stable_sort(keyed.begin(), keyed.end(), [reverse](const auto& a, const auto& b) {
    const absl::StatusOr<bool> less =
        reverse ? b.first.LessThan(a.first) : a.first.LessThan(b.first);
    return less.ok() && *less;
  });
  items.clear();
  for (auto& [key, item] : keyed) items.push_back(std::move(item));
  return MakeList(std::move(items), budget);
}

absl::StatusOr<std::string> OptionalAttribute(const CallArguments& arguments, size_t index) {
  const Value* attribute = arguments.Find(index, "attribute");
  if (attribute == nullptr || attribute->is_none()) return std::string();
  return AttributeName(*attribute);
}

Result Sort(const Value& value, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("sort", {"reverse", "case_sensitive", "attribute"}));
  UQ_ASSIGN_OR_RETURN(List items, Items(value, budget));
  UQ_ASSIGN_OR_RETURN(const std::string path, OptionalAttribute(arguments, 2));
  return SortItems(std::move(items), path, arguments.Flag(1, "case_sensitive", false),
                   arguments.Flag(0, "reverse", false), budget);
}

Result DictSort(const Value& value, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("dictsort", {"case_sensitive", "by", "reverse"}));
  UQ_ASSIGN_OR_RETURN(const std::string by, arguments.Text(1, "by", "key"));
  UQ_ASSIGN_OR_RETURN(const Value pairs, ItemsFilter(value, {}, budget));
  return SortItems(pairs.AsList()->items, by == "value" ? "1" : "0",
                   arguments.Flag(0, "case_sensitive", false), arguments.Flag(2, "reverse", false),
                   budget);
}

Result Unique(const Value& value, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("unique", {"case_sensitive", "attribute"}));
  UQ_ASSIGN_OR_RETURN(const List items, Items(value, budget));
  UQ_ASSIGN_OR_RETURN(const std::string path, OptionalAttribute(arguments, 1));
  List kept, keys;
  for (const Value& item : items) {
    const Value key = SortKey(item, path, arguments.Flag(0, "case_sensitive", false));
    UQ_RETURN_IF_ERROR(budget->Step(static_cast<int64_t>(keys.size())));
    UQ_RETURN_IF_ERROR(budget->Bytes(key.size() * (keys.size() + 1)));
    if (std::any_of(keys.begin(), keys.end(), [&](const Value& k) { return k.Equals(key); })) {
      continue;
    }
    keys.push_back(key);
    kept.push_back(item);
  }
  return MakeList(std::move(kept), budget);
}

template <bool kMax>
Result Extreme(const Value& value, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("min and max", {"case_sensitive", "attribute"}));
  UQ_ASSIGN_OR_RETURN(List items, Items(value, budget));
  UQ_ASSIGN_OR_RETURN(const std::string path, OptionalAttribute(arguments, 1));
  UQ_ASSIGN_OR_RETURN(
      const Value sorted,
      SortItems(std::move(items), path, arguments.Flag(0, "case_sensitive", false), kMax, budget));
  const List& all = sorted.AsList()->items;
  return all.empty() ? Value::Undefined("the extreme of no items") : all.front();
}

Result Sum(const Value& value, const CallArguments& arguments, Budget* budget) {
  UQ_RETURN_IF_ERROR(arguments.Expect("sum", {"attribute", "start"}));
  UQ_ASSIGN_OR_RETURN(const List items, Items(value, budget));
  UQ_ASSIGN_OR_RETURN(const std::string path, OptionalAttribute(arguments, 0));
  UQ_ASSIGN_OR_RETURN(int64_t whole, arguments.Number(1, "start", 0));
  double sum = static_cast<double>(whole);
  bool exact = true;
  for (const Value& item : items) {
    const Value addend = path.empty() ? item : AttributePath(item, path);
    int64_t number;
    double real;
    if (!addend.ToDouble(&real)) {
      return Failed(absl::StrCat("sum of a value of type ", addend.TypeName()));
    }
    sum += real;
    exact = exact && addend.ToInt(&number) && !__builtin_add_overflow(whole, number, &whole);
  }
  return exact ? Value::Int(whole) : Value::Float(sum);
}

}  // namespace

const FilterTable& ListFilters() {
  static const auto* const table = new FilterTable{
      {"select", Select<true, false>},
      {"reject", Select<false, false>},
      {"selectattr", Select<true, true>},
      {"rejectattr", Select<false, true>},
      {"map", Map},
      {"join", Join},
      {"list", ListFilter},
      {"first", End<true>},
      {"last", End<false>},
      {"reverse", Reverse},
      {"items", ItemsFilter},
      {"sort", Sort},
      {"dictsort", DictSort},
      {"unique", Unique},
      {"min", Extreme<false>},
      {"max", Extreme<true>},
      {"sum", Sum},
  };
  return *table;
}

}  // namespace uniquanf::jinja
