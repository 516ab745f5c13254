#include "worker/text/jinja_value.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace uniquanf::jinja {
namespace {

// A key's spelling in the index; numbers and strings apart.
bool KeyText(const Value& key, std::string* text) {
  int64_t number;
  if (const std::string* string = key.AsString()) {
    *text = absl::StrCat("s", *string);
    return true;
  }
  if (!key.ToInt(&number)) return false;
  *text = absl::StrCat("i", number);
  return true;
}

absl::Status CheckBounds(int depth, uint64_t size) {
  if (depth > Value::kMaxDepth) {
    return Failed(absl::StrCat("lists and dictionaries are nested deeper than ", Value::kMaxDepth));
  }
  if (size <= Value::kMaxSize) return absl::OkStatus();
  return Failed(absl::StrCat("a list or dictionary is larger than ", Value::kMaxSize, " bytes"));
}

}  // namespace

absl::Status Failed(absl::string_view message) {
  return InvalidInput("CHAT_TEMPLATE_FAILED", message);
}

Value Value::Undefined(absl::string_view name) {
  return Value(Data(std::make_shared<const std::string>(name)));
}

Value Value::String(std::string text) {
  return Value(Data(StringData{std::make_shared<const std::string>(std::move(text))}));
}

absl::StatusOr<Value> Value::OfList(List items, bool tuple) {
  auto data = std::make_shared<ListData>();
  for (const Value& item : items) {
    data->depth = std::max(data->depth, item.depth() + 1);
    data->size = std::min(data->size + item.size() + 2, kMaxSize + 1);
    data->holds_namespace = data->holds_namespace || item.HoldsNamespace();
  }
  UQ_RETURN_IF_ERROR(CheckBounds(data->depth, data->size));
  data->items = std::move(items);
  data->tuple = tuple;
  return Value(Data(std::shared_ptr<const ListData>(std::move(data))));
}

absl::StatusOr<Value> Value::OfDict(Dict dict) {
  UQ_RETURN_IF_ERROR(CheckBounds(dict.depth, dict.size));
  return Value(Data(std::make_shared<const Dict>(std::move(dict))));
}

absl::StatusOr<Value> Value::FromJson(const nlohmann::ordered_json& json) {
  if (json.is_null()) return None();
  if (json.is_boolean()) return Bool(json.get<bool>());
  if (json.is_string()) return String(json.get<std::string>());
  if (json.is_number_unsigned() &&
      json.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return Failed(absl::StrCat("the number ", json.get<uint64_t>(), " of the sample is too large"));
  }
  if (json.is_number_integer()) return Int(json.get<int64_t>());
  if (json.is_number_float()) return Float(json.get<double>());
  if (json.is_array()) {
    List items;
    items.reserve(json.size());
    for (const nlohmann::ordered_json& item : json) {
      UQ_ASSIGN_OR_RETURN(Value value, FromJson(item));
      items.push_back(std::move(value));
    }
    return OfList(std::move(items));
  }
  Dict dict;
  for (const auto& [key, member] : json.items()) {
    UQ_ASSIGN_OR_RETURN(Value value, FromJson(member));
    UQ_RETURN_IF_ERROR(dict.Set(String(key), std::move(value)));
  }
  return OfDict(std::move(dict));
}

const std::string* Value::AsString() const {
  const auto* data = std::get_if<StringData>(&data_);
  return data == nullptr ? nullptr : data->text.get();
}
const ListData* Value::AsList() const {
  const auto* data = std::get_if<std::shared_ptr<const ListData>>(&data_);
  return data == nullptr ? nullptr : data->get();
}
const Dict* Value::AsDict() const {
  const auto* data = std::get_if<std::shared_ptr<const Dict>>(&data_);
  return data == nullptr ? nullptr : data->get();
}
Namespace* Value::AsNamespace() const {
  const auto* data = std::get_if<std::shared_ptr<Namespace>>(&data_);
  return data == nullptr ? nullptr : data->get();
}
const Loop* Value::AsLoop() const {
  const auto* data = std::get_if<std::shared_ptr<const Loop>>(&data_);
  return data == nullptr ? nullptr : data->get();
}
const Function* Value::AsFunction() const {
  const auto* data = std::get_if<std::shared_ptr<const Function>>(&data_);
  return data == nullptr ? nullptr : data->get();
}

bool Value::ToInt(int64_t* number) const {
  if (const int64_t* value = AsInt()) {
    *number = *value;
  } else if (const bool* flag = AsBool()) {
    *number = *flag ? 1 : 0;
  } else {
    return false;
  }
  return true;
}

bool Value::ToDouble(double* number) const {
  int64_t whole;
  if (ToInt(&whole)) {
    *number = static_cast<double>(whole);
  } else if (const double* value = AsFloat()) {
    *number = *value;
  } else {
    return false;
  }
  return true;
}

bool Value::Truth() const {
  if (is_undefined() || is_none()) return false;
  double number;
  if (ToDouble(&number)) return number != 0;
  if (const std::string* text = AsString()) return !text->empty();
  if (const ListData* list = AsList()) return !list->items.empty();
  if (const Dict* dict = AsDict()) return !dict->entries.empty();
  return true;
}

bool Value::Equals(const Value& other) const {
  int64_t whole, other_whole;
  if (ToInt(&whole) && other.ToInt(&other_whole)) return whole == other_whole;
  double number, other_number;
  if (ToDouble(&number) && other.ToDouble(&other_number)) return number == other_number;
  if (const std::string* text = AsString()) {
    return other.AsString() != nullptr && *text == *other.AsString();
  }
  if (const ListData* list = AsList()) {
    const ListData* right = other.AsList();
    return right != nullptr && list->tuple == right->tuple &&
           std::equal(list->items.begin(), list->items.end(), right->items.begin(),
                      right->items.end(),
                      [](const Value& a, const Value& b) { return a.Equals(b); });
  }
  if (const Dict* dict = AsDict()) {
    const Dict* right = other.AsDict();
    return right != nullptr && dict->entries.size() == right->entries.size() &&
           std::all_of(dict->entries.begin(), dict->entries.end(), [right](const auto& entry) {
             const Value* value = right->Find(entry.first);
             return value != nullptr && entry.second.Equals(*value);
           });
  }
  if (is_undefined() || is_none()) return data_.index() == other.data_.index();
  if (AsNamespace() != nullptr) return AsNamespace() == other.AsNamespace();
  if (AsFunction() != nullptr) return AsFunction() == other.AsFunction();
  return AsLoop() != nullptr && AsLoop() == other.AsLoop();
}

absl::StatusOr<bool> Value::LessThan(const Value& other) const {
  int64_t whole, other_whole;
  if (ToInt(&whole) && other.ToInt(&other_whole)) return whole < other_whole;
  double number, other_number;
  if (ToDouble(&number) && other.ToDouble(&other_number)) return number < other_number;
  if (AsString() != nullptr && other.AsString() != nullptr) {
    return *AsString() < *other.AsString();  // UTF-8 orders as its code points do
  }
  if (AsList() != nullptr && other.AsList() != nullptr) {
    const List &left = AsList()->items, &right = other.AsList()->items;
    for (size_t i = 0; i < left.size() && i < right.size(); ++i) {
      if (!left[i].Equals(right[i])) return left[i].LessThan(right[i]);
    }
    return left.size() < right.size();
  }
  return Failed(absl::StrCat("a value of type ", TypeName(),
                             " cannot be compared with one of type ", other.TypeName()));
}

int Value::depth() const {
  if (AsList() != nullptr) return AsList()->depth;
  return AsDict() != nullptr ? AsDict()->depth : 0;
}

uint64_t Value::size() const {
  if (AsString() != nullptr) return AsString()->size() + 2;
  if (AsList() != nullptr) return AsList()->size;
  return AsDict() != nullptr ? AsDict()->size : 8;
}

bool Value::HoldsNamespace() const {
  // A function may belong to a namespace's attribute; it holds what it was made from.
  if (AsNamespace() != nullptr || AsFunction() != nullptr || AsLoop() != nullptr) return true;
  if (AsList() != nullptr) return AsList()->holds_namespace;
  return AsDict() != nullptr && AsDict()->holds_namespace;
}

const char* Value::TypeName() const {
  if (is_undefined()) return "undefined";
  if (is_none()) return "None";
  if (AsBool() != nullptr) return "bool";
  if (AsInt() != nullptr) return "int";
  if (AsFloat() != nullptr) return "float";
  if (AsString() != nullptr) return "str";
  if (AsList() != nullptr) return AsList()->tuple ? "tuple" : "list";
  if (AsDict() != nullptr) return "dict";
  if (AsNamespace() != nullptr) return "namespace";
  return AsFunction() != nullptr ? "function" : "loop";
}

std::string Value::UndefinedName() const {
  const auto* name = std::get_if<UndefinedData>(&data_);
  return name == nullptr || *name == nullptr ? "a value" : absl::StrCat("\"", **name, "\"");
}

absl::Status Dict::Set(const Value& key, Value value) {
  std::string text;
  if (!KeyText(key, &text)) {
    return Failed(absl::StrCat("a key of type ", key.TypeName(),
                               " of a dictionary; strings and whole numbers are supported"));
  }
  depth = std::max(depth, value.depth() + 1);
  size = std::min(size + key.size() + value.size() + 4, Value::kMaxSize + 1);
  holds_namespace = holds_namespace || value.HoldsNamespace();
  const auto [it, added] = index_.emplace(std::move(text), entries.size());
  if (added) {
    entries.emplace_back(key, std::move(value));
  } else {
    entries[it->second].second = std::move(value);
  }
  return absl::OkStatus();
}

const Value* Dict::Find(const Value& key) const {
  std::string text;
  if (!KeyText(key, &text)) return nullptr;
  const auto it = index_.find(text);
  return it == index_.end() ? nullptr : &entries[it->second].second;
}

const Value* Dict::Find(absl::string_view key) const {
  const auto it = index_.find(absl::StrCat("s", key));
  return it == index_.end() ? nullptr : &entries[it->second].second;
}

}  // namespace uniquanf::jinja
