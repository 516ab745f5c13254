#include "common/base/troff.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/version.h"

namespace uniquanf {

std::string Troff(absl::string_view text) {
  std::string out;
  bool line_start = true;
  for (const char c : text) {
    if (line_start && (c == '.' || c == '\'')) absl::StrAppend(&out, "\\&");
    line_start = c == '\n';
    if (c == '\\') {
      absl::StrAppend(&out, "\\e");
    } else if (c == '-') {
      absl::StrAppend(&out, "\\-");
    } else {
      out.push_back(c);
    }
  }
  return out;
}

std::string TroffArgument(absl::string_view text) {
  return absl::StrCat("\"", absl::StrReplaceAll(Troff(text), {{"\"", "\\(dq"}}), "\"");
}

std::string ManualHead(absl::string_view name, int section, absl::string_view summary) {
  std::string sentence = absl::StrReplaceAll(summary.substr(0, summary.find(". ")), {{"\n", " "}});
  if (absl::EndsWith(sentence, ".")) sentence.pop_back();
  return absl::StrCat(".TH ", TroffArgument(absl::AsciiStrToUpper(name)), " ", section, " \"\" ",
                      TroffArgument(absl::StrCat("uniquanf ", kSoftwareVersion)),
                      "\n.ad l\n.SH NAME\n", Troff(name), " \\- ", Troff(sentence), "\n");
}

}  // namespace uniquanf
