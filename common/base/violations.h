// Everything that is wrong with a request, instead of the first thing: fields and what is wrong
// with each, collected into one kInvalidArgument that carries them (google.rpc.BadRequest on the
// wire, common/rpc/status_proto.h). Thread safety: plain values and free functions.
#ifndef UNIQUANF_COMMON_BASE_VIOLATIONS_H_
#define UNIQUANF_COMMON_BASE_VIOLATIONS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace uniquanf {

struct FieldViolation {
  std::string field;        // path in what was checked: "overrides[0].bits"
  std::string description;  // the value, and what is allowed
  bool operator==(const FieldViolation&) const = default;
};

class Violations {
 public:
  // Of several about one field the first counts.
  void Add(absl::string_view reason, absl::string_view field, absl::string_view description);
  // What a check of a part found: nothing when OK; the violations that it carries, with `prefix`
  // before their fields; or the whole of it as one of the field `prefix` (without a dot at its
  // end).
  void Merge(const absl::Status& status, absl::string_view prefix);

  bool empty() const { return found_.empty(); }
  // OK when empty. Else the first one's reason and description, with the names of the other fields
  // after it.
  absl::Status status() const;

 private:
  std::string reason_;
  std::vector<FieldViolation> found_;
};

// kInvalidArgument about one field.
absl::Status InvalidField(absl::string_view reason, absl::string_view field,
                          absl::string_view description);

// Those that `status` carries; none for errors that are about no field.
std::vector<FieldViolation> FieldViolations(const absl::Status& status);
// `status` carrying `violations`.
absl::Status WithViolations(absl::Status status, const std::vector<FieldViolation>& violations);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_VIOLATIONS_H_
