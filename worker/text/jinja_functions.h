// What a template can call: filters, tests, and methods of strings, lists and dictionaries, as
// Jinja2 and Python define them. What is not here is an error that names it.
//
// Thread safety: free functions. Errors: kInvalidArgument with reasons CHAT_TEMPLATE_FAILED and
// CHAT_TEMPLATE_TOO_COMPLEX.
#ifndef UNIQUANF_WORKER_TEXT_JINJA_FUNCTIONS_H_
#define UNIQUANF_WORKER_TEXT_JINJA_FUNCTIONS_H_

#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/text/jinja_value.h"

namespace uniquanf::jinja {

// What one rendering may cost.
class Budget {
 public:
  static constexpr int64_t kMaxSteps = 5'000'000;           // nodes evaluated, items looked at
  static constexpr uint64_t kMaxBytes = uint64_t{1} << 29;  // made and compared, over all values

  absl::Status Step(int64_t steps = 1);
  absl::Status Bytes(uint64_t bytes);
  // Of a value that is copied, compared or printed.
  absl::Status Copy(const Value& value) { return Bytes(value.size()); }
  // Calls within calls, as the stack holds them; leave with Leave, also after an error.
  absl::Status Enter();
  void Leave() { --depth_; }

 private:
  static constexpr int kMaxDepth = 600;
  int depth_ = 0;
  int64_t steps_ = 0;
  uint64_t bytes_ = 0;
};

// The arguments of a call.
struct CallArguments {
  List positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument at `index`, or of this name; null where it is not given.
  const Value* Find(size_t index, absl::string_view name) const;
  bool Flag(size_t index, absl::string_view name, bool fallback) const;
  // A whole number; error for another type.
  absl::StatusOr<int64_t> Number(size_t index, absl::string_view name, int64_t fallback) const;
  absl::StatusOr<std::string> Text(size_t index, absl::string_view name,
                                   absl::string_view fallback) const;
  // Error when there are more positional arguments than names, or a named one that is none of them.
  absl::Status Expect(absl::string_view function,
                      std::initializer_list<absl::string_view> names) const;
};

absl::StatusOr<Value> ApplyFilter(absl::string_view name, const Value& value,
                                  const CallArguments& arguments, Budget* budget);
absl::StatusOr<bool> ApplyTest(absl::string_view name, const Value& value,
                               const CallArguments& arguments, Budget* budget);
// Whether a value of this kind has the method.
bool HasMethod(const Value& value, absl::string_view name);
// REQUIRES: HasMethod(value, name).
absl::StatusOr<Value> CallMethod(absl::string_view name, const Value& value,
                                 const CallArguments& arguments, Budget* budget);

// What a loop goes over: items, keys, characters. Error for what holds none.
absl::StatusOr<List> Items(const Value& value, Budget* budget);
// value.name or value[name] as filters look attributes up: "a.b.0".
Value AttributePath(const Value& value, absl::string_view path);
// A new string, on the budget.
absl::StatusOr<Value> NewString(std::string text, Budget* budget);
// Of a string or a list, as Python's x[start:stop:step]; null bounds were left out.
absl::StatusOr<Value> Slice(const Value& value, const int64_t* start, const int64_t* stop,
                            int64_t step, Budget* budget);
absl::StatusOr<bool> Contains(const Value& container, const Value& item, Budget* budget);
absl::StatusOr<int64_t> Length(const Value& value);
absl::Status UndefinedError(const Value& value);

// Strings, by code points.
std::string Lower(absl::string_view text);
std::string Upper(absl::string_view text);
bool IsPythonSpace(char32_t c);
// Without white characters; `left`, `right`: which ends.
absl::string_view Strip(absl::string_view text, bool left, bool right);
// The position in bytes of `part`, in linear time whatever the texts are; npos.
size_t FindText(absl::string_view text, absl::string_view part, size_t from);
// At most `count` times; below 0: everywhere.
absl::StatusOr<std::string> ReplaceText(absl::string_view text, absl::string_view from,
                                        absl::string_view to, int64_t count, Budget* budget);

}  // namespace uniquanf::jinja

#endif  // UNIQUANF_WORKER_TEXT_JINJA_FUNCTIONS_H_
