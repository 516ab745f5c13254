#include "client/cli/output.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "client/cli/yaml.h"
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

void PrintYaml(const nlohmann::ordered_json& document) {
  std::fputs(ToYaml(document).c_str(), stdout);
}

void PrintNames(const nlohmann::ordered_json& document) {
  for (const char* key : {"name", "deleted"}) {
    if (document.contains(key)) std::puts(Printable(document[key].get<std::string>()).c_str());
  }
  for (const char* list : {"jobs", "tasks", "workers"}) {
    if (!document.contains(list) || document.contains("name")) continue;
    for (const auto& entry : document[list]) PrintNames(entry);
  }
}

int TerminalWidth() {
  winsize size = {};
  return ::isatty(STDOUT_FILENO) == 1 && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0
             ? size.ws_col
             : 0;
}

namespace {

constexpr size_t kMinLongColumn = 8;

// Code points; printable text has no others that take no column.
size_t Columns(absl::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

std::string CutTo(const std::string& text, size_t columns) {
  if (Columns(text) <= columns) return text;
  std::string out;
  size_t used = 0;
  for (const char c : text) {
    if ((c & 0xC0) != 0x80 && ++used >= columns) break;
    out.push_back(c);
  }
  return absl::StrCat(out, "~");
}

}  // namespace

std::vector<std::string> TableLines(const std::vector<Column>& columns,
                                    std::vector<std::vector<std::string>> rows, int width) {
  std::vector<std::string> heading;
  for (const Column& column : columns) heading.emplace_back(column.heading);
  rows.insert(rows.begin(), std::move(heading));
  std::vector<size_t> widths(columns.size(), 0);
  size_t total = 2 * (columns.size() - 1);
  for (size_t i = 0; i < columns.size(); ++i) {
    for (auto& row : rows) {
      row[i] = Printable(row[i]);
      widths[i] = std::max(widths[i], Columns(row[i]));
    }
    total += widths[i];
  }
  // The longest of the columns that may be cut gives way first.
  while (width > 0 && total > static_cast<size_t>(width)) {
    size_t longest = columns.size();
    for (size_t i = 0; i < columns.size(); ++i) {
      if (columns[i].kind != Column::kLong || widths[i] <= kMinLongColumn) continue;
      if (longest == columns.size() || widths[i] > widths[longest]) longest = i;
    }
    if (longest < columns.size()) {
      --widths[longest];
      --total;
      continue;
    }
    // Then columns go, from the right; names and states stay.
    size_t last = columns.size();
    while (last > 0 && widths[last - 1] == 0) --last;
    if (last <= 2) break;
    total -= widths[last - 1] + 2;
    widths[last - 1] = 0;
  }
  std::vector<std::string> lines;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      if (widths[i] == 0) continue;
      const std::string cell = CutTo(row[i], widths[i]);
      const std::string padding(widths[i] - Columns(cell), ' ');
      const bool right = columns[i].kind == Column::kNumber;
      absl::StrAppend(&line, i == 0 ? "" : "  ", right ? padding : "", cell, right ? "" : padding);
    }
    lines.emplace_back(absl::StripTrailingAsciiWhitespace(line));
  }
  return lines;
}

void PrintTable(const std::vector<Column>& columns, std::vector<std::vector<std::string>> rows) {
  for (const std::string& line : TableLines(columns, std::move(rows), TerminalWidth())) {
    std::puts(line.c_str());
  }
}

}  // namespace uniquanf::cli
