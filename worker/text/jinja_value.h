// Values of a template: what expressions give and variables hold, with Python's meaning of them.
//
// Lists, dictionaries and strings are immutable, as in the sandbox that chat templates are written
// for; a namespace's attributes alone can be set. No value holds itself: a namespace holds nothing
// that holds a namespace, and nesting and printed size are bounded (a list may hold another one
// many times), so that everything is freed and no walk through a value is deep or long.
//
// Thread safety: values share immutable data; those of one rendering belong to one thread.
// Errors: kInvalidArgument with reason CHAT_TEMPLATE_FAILED.
#ifndef UNIQUANF_WORKER_TEXT_JINJA_VALUE_H_
#define UNIQUANF_WORKER_TEXT_JINJA_VALUE_H_

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace uniquanf::jinja {

// A mistake in a template, or a sample that it cannot take.
absl::Status Failed(absl::string_view message);

class Value;
struct Dict;
struct Function;  // interpreter.h
struct Loop;

using List = std::vector<Value>;
struct ListData {
  List items;
  bool tuple = false;  // prints with parentheses
  int depth = 1;
  uint64_t size = 2;
  bool holds_namespace = false;
};
struct Namespace {
  absl::flat_hash_map<std::string, Value> attributes;
};

class Value {
 public:
  static constexpr int kMaxDepth = 100;           // of lists and dictionaries in each other
  static constexpr uint64_t kMaxSize = 64 << 20;  // see size()

  Value() = default;  // undefined
  static Value Undefined(absl::string_view name);
  static Value None() { return Value(Data(NoneData())); }
  static Value Bool(bool value) { return Value(Data(value)); }
  static Value Int(int64_t value) { return Value(Data(value)); }
  static Value Float(double value) { return Value(Data(value)); }
  static Value String(std::string text);
  static Value Of(std::shared_ptr<Namespace> value) { return Value(Data(std::move(value))); }
  static Value Of(std::shared_ptr<const Loop> value) { return Value(Data(std::move(value))); }
  static Value Of(std::shared_ptr<const Function> value) { return Value(Data(std::move(value))); }
  // Error when the nesting is too deep, or the size too large.
  static absl::StatusOr<Value> OfList(List items, bool tuple = false);
  static absl::StatusOr<Value> OfDict(Dict dict);
  // Members in the order of `json`.
  static absl::StatusOr<Value> FromJson(const nlohmann::ordered_json& json);

  bool is_undefined() const { return std::holds_alternative<UndefinedData>(data_); }
  bool is_none() const { return std::holds_alternative<NoneData>(data_); }
  const bool* AsBool() const { return std::get_if<bool>(&data_); }
  const int64_t* AsInt() const { return std::get_if<int64_t>(&data_); }
  const double* AsFloat() const { return std::get_if<double>(&data_); }
  // The value as a number: bool, int or float; false where it is none.
  bool ToDouble(double* number) const;
  bool ToInt(int64_t* number) const;  // bool or int
  // Null where the value is of another kind.
  const std::string* AsString() const;
  const ListData* AsList() const;
  const Dict* AsDict() const;
  Namespace* AsNamespace() const;
  const Loop* AsLoop() const;
  const Function* AsFunction() const;

  bool Truth() const;
  // As Python's == has it: numbers by value, lists and dictionaries by their members.
  bool Equals(const Value& other) const;
  // For <, and for sorting. Error for kinds that Python does not order.
  absl::StatusOr<bool> LessThan(const Value& other) const;
  int depth() const;
  // About the bytes that it prints, which is also what comparing and copying costs.
  uint64_t size() const;
  bool HoldsNamespace() const;
  // "str", "int", …: Python's name of the kind, for messages.
  const char* TypeName() const;
  // The name that an undefined value was looked up by.
  std::string UndefinedName() const;
  // What {{ … }} prints.
  std::string Str() const;
  // As within a printed list: strings in quotes.
  void AppendRepr(std::string* out) const;

 private:
  struct NoneData {};
  using UndefinedData = std::shared_ptr<const std::string>;
  struct StringData {
    std::shared_ptr<const std::string> text;
  };
  using Data = std::variant<UndefinedData, NoneData, bool, int64_t, double, StringData,
                            std::shared_ptr<const ListData>, std::shared_ptr<const Dict>,
                            std::shared_ptr<Namespace>, std::shared_ptr<const Loop>,
                            std::shared_ptr<const Function>>;
  explicit Value(Data data) : data_(std::move(data)) {}
  Data data_;
};

// Entries in the order in which they were added; keys are strings or whole numbers.
struct Dict {
  std::vector<std::pair<Value, Value>> entries;
  int depth = 1;
  uint64_t size = 2;
  bool holds_namespace = false;

  // Adds or replaces. Error for a key of another kind.
  absl::Status Set(const Value& key, Value value);
  const Value* Find(const Value& key) const;  // null where there is none
  const Value* Find(absl::string_view key) const;

 private:
  absl::flat_hash_map<std::string, size_t> index_;
};

// One iteration's `loop`.
struct Loop {
  int64_t index0 = 0, length = 0, depth = 1;
  Value previous, next;
};

struct JsonStyle {
  std::string indent;  // "": all in one line
  bool indented = false, ascii = false, sort_keys = false;
  std::string item_separator = ", ", key_separator = ": ";
};
// As Python's json.dumps writes it. Error for values that JSON has not, and beyond Value::kMaxSize.
absl::Status AppendJson(const Value& value, const JsonStyle& style, int level, std::string* out);
// As Python prints a float.
std::string FloatText(double value);

}  // namespace uniquanf::jinja

#endif  // UNIQUANF_WORKER_TEXT_JINJA_VALUE_H_
