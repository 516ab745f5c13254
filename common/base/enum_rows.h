// An enum's words, said once: a table with a row {value, name, ...} an enumerator, and the look-ups
// that every table shares. Thread safety: free functions over constants.
#ifndef UNIQUANF_COMMON_BASE_ENUM_ROWS_H_
#define UNIQUANF_COMMON_BASE_ENUM_ROWS_H_

#include <iterator>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/strings/string_view.h"

namespace uniquanf {

// The plain row; a table may use a struct of its own with these members and more.
template <typename E>
struct EnumRow {
  E value;
  const char* name;
  const char* help = "";
};

// The row's name; `otherwise` for a value without a row (of a later version).
template <typename Rows, typename E>
absl::string_view EnumName(const Rows& rows, E value, absl::string_view otherwise = "unknown") {
  for (const auto& row : rows) {
    if (row.value == value) return row.name;
  }
  return otherwise;
}

// The value whose name is exactly `name`.
template <typename Rows>
auto ParseEnumName(const Rows& rows, absl::string_view name) {
  std::optional<std::remove_cv_t<decltype(std::begin(rows)->value)>> found;
  for (const auto& row : rows) {
    if (name == row.name) found = row.value;
  }
  return found;
}

// Every name, in the table's order.
template <typename Rows>
std::vector<std::string> EnumNames(const Rows& rows) {
  std::vector<std::string> names;
  for (const auto& row : rows) names.push_back(row.name);
  return names;
}

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_ENUM_ROWS_H_
