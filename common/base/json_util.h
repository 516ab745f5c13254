// JSON at our edges. Reading: untrusted text to a DOM with bounded depth and without duplicate keys
// (nlohmann's parser accepts both silently), and typed access to the members of an object that
// names the offending field. Writing: one spelling for everything that is digested.
//
// Thread safety: plain values. Errors: kInvalidArgument with the reason that the caller gives.
#ifndef UNIQUANF_COMMON_BASE_JSON_UTIL_H_
#define UNIQUANF_COMMON_BASE_JSON_UTIL_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace uniquanf {

inline constexpr int kDefaultMaxJsonDepth = 64;

// Parses `text`; `what` names it in messages ("manifest.json"). Refuses invalid JSON and UTF-8,
// nesting deeper than `max_depth`, and an object with the same key twice.
absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text, absl::string_view what,
                                         absl::string_view reason,
                                         int max_depth = kDefaultMaxJsonDepth);

// JSON as Python's json module writes it, as JSON: NaN becomes null, Infinity the largest double.
// Text that is JSON stays as it is.
std::string PythonJsonToJson(absl::string_view text);

// Reads the members of one JSON object, each at most once, and remembers the first error; after
// the last member ask Finish, which also refuses members that nobody read.
// Optional reads leave the target alone when the member is missing; null counts as a wrong type.
// The object is borrowed.
class JsonObjectReader {
 public:
  // `path` is put before member names in messages: "overrides[2]" or "" at the top.
  JsonObjectReader(const nlohmann::json& value, absl::string_view path, absl::string_view reason);

  enum Presence { kRequired, kOptional };
  void Read(absl::string_view name, Presence presence, std::string* out);
  void Read(absl::string_view name, Presence presence, bool* out);
  void Read(absl::string_view name, Presence presence, int* out);
  void Read(absl::string_view name, Presence presence, int64_t* out);
  void Read(absl::string_view name, Presence presence, uint64_t* out);
  // Any finite JSON number.
  void Read(absl::string_view name, Presence presence, double* out);
  // The same, and null as NaN: how JSON is written here where a number is not finite.
  void ReadOrNan(absl::string_view name, Presence presence, double* out);
  void ReadOrNan(absl::string_view name, Presence presence, std::vector<double>* out);
  void Read(absl::string_view name, Presence presence, std::vector<std::string>* out);
  // The member itself, an object or an array; null when missing or of another type.
  const nlohmann::json* ReadObject(absl::string_view name, Presence presence);
  const nlohmann::json* ReadArray(absl::string_view name, Presence presence);
  bool Has(absl::string_view name) const;

  // "path.name", for messages about a member.
  std::string PathOf(absl::string_view name) const;
  // Records an error of the caller's, unless there is one already.
  void Fail(absl::string_view message);
  bool ok() const { return status_.ok(); }
  // The first error, or that of an unknown member, naming the known ones.
  absl::Status Finish();

 private:
  const nlohmann::json* Find(absl::string_view name, Presence presence);
  void FailType(absl::string_view name, absl::string_view expected, const nlohmann::json& value);

  const nlohmann::json* object_;  // null when the value was no object
  std::string path_;
  std::string reason_;
  std::set<std::string> known_;
  absl::Status status_;
};

// The text of a value whose members are in the order in which they were added: bytes that depend on
// nothing but the values. Doubles read back to the same double, non-finite ones are null; what is
// no UTF-8 in a string becomes U+FFFD.
using OrderedJson = nlohmann::ordered_json;
std::string CompactJson(const OrderedJson& value);
// Indented by one space a level, one member a line, a line feed at the end.
std::string IndentedJson(const OrderedJson& value);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_JSON_UTIL_H_
