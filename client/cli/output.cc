#include "client/cli/output.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "common/base/printable.h"

namespace uniquanf::cli {

std::string Printable(absl::string_view text) { return PrintableText(text); }

std::string FormatLocalTime(absl::Time time) {
  if (time == absl::InfinitePast() || time == absl::InfiniteFuture()) return "-";
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", time, absl::LocalTimeZone());
}

std::string ShortJobName(absl::string_view name) {
  return Printable(absl::StripPrefix(name, "jobs/"));
}

void PrintJson(const nlohmann::ordered_json& document) {
  std::puts(PrintableJson(document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace))
                .c_str());
}

void PrintJsonLine(const nlohmann::ordered_json& document) {
  std::puts(PrintableJson(document.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace))
                .c_str());
  std::fflush(stdout);
}

void PrintTable(std::vector<std::vector<std::string>> rows,
                const std::vector<bool>& right_aligned) {
  std::vector<size_t> widths(right_aligned.size(), 0);
  for (auto& row : rows) {
    for (std::string& cell : row) cell = Printable(cell);
  }
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - row[i].size(), ' ');
      absl::StrAppend(&line, i == 0 ? "" : "  ", right_aligned[i] ? padding : "", row[i],
                      right_aligned[i] ? "" : padding);
    }
    std::puts(std::string(absl::StripTrailingAsciiWhitespace(line)).c_str());
  }
}

}  // namespace uniquanf::cli
