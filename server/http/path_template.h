// Paths as google.api.http writes them: "/v1/{name=jobs/*}:cancel". "*" is one segment, "**" all
// that follow (at the end only), "{field}" is "{field=*}", and a last ":" begins a custom verb.
//
// Thread safety: immutable once made.
#ifndef UNIQUANF_SERVER_HTTP_PATH_TEMPLATE_H_
#define UNIQUANF_SERVER_HTTP_PATH_TEMPLATE_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace uniquanf::server {

class PathTemplate {
 public:
  struct Variable {
    std::string field;  // "name", "job.tenant"
    size_t begin, end;  // of the segments
  };

  // Errors: kInvalidArgument (INVALID_HTTP_RULE): the annotation is no such path.
  static absl::StatusOr<PathTemplate> Parse(absl::string_view text);

  // What the variables stand for in a path of a request line, decoded; nullopt: it does not match.
  // A segment that is decoded never holds a '/' that was none in the path.
  std::optional<std::map<std::string, std::string>> Match(absl::string_view path) const;

  const std::vector<std::string>& segments() const { return segments_; }  // "*", "**" or literal
  const std::vector<Variable>& variables() const { return variables_; }
  const std::string& verb() const { return verb_; }  // without its ':'; "": none

 private:
  std::vector<std::string> segments_;
  std::vector<Variable> variables_;
  std::string verb_;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_HTTP_PATH_TEMPLATE_H_
