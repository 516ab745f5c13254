// Reads the small XML documents of S3 and STS responses (expat).
//
// Thread safety: a free function; the result is a value. The input is untrusted: document types
// (and so entity definitions) are refused, and depth and number of elements are bounded.
#ifndef UNIQUANF_COMMON_OBJECT_STORE_S3_XML_H_
#define UNIQUANF_COMMON_OBJECT_STORE_S3_XML_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace uniquanf {

struct XmlElement {
  std::string name;  // without a namespace prefix
  std::string text;  // character data directly in this element
  std::vector<XmlElement> children;

  // The first child called `child_name`, or null.
  const XmlElement* Find(absl::string_view child_name) const;
  // Its text, or "" when there is none.
  absl::string_view Text(absl::string_view child_name) const;
};

// The root element. Errors: kInvalidArgument (INVALID_XML), without text of the document.
absl::StatusOr<XmlElement> ParseXml(absl::string_view document);

// `text` escaped for use as character data.
std::string XmlEscape(absl::string_view text);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_OBJECT_STORE_S3_XML_H_
