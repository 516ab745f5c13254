#include "common/base/terminal_progress.h"
#include "common/base/environment.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/printable.h"

namespace uniquanf {
namespace {

constexpr int kMinBarColumns = 8, kMaxBarColumns = 30;

// Columns of UTF-8 text, counting each code point as one (labels here are names, not CJK prose).
int Columns(absl::string_view text) {
  return static_cast<int>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string WithoutColors(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\x1b') {
      out.push_back(text[i]);
      continue;
    }
    while (i < text.size() && text[i] != 'm') ++i;
  }
  return out;
}

// The first `columns` columns of `text`; control characters, which would break the redraw, are
// shown.
std::string Cut(absl::string_view text, int columns) {
  std::string out;
  int used = 0;
  for (const char c : PrintableText(text)) {
    const bool starts = (c & 0xC0) != 0x80;
    if (starts && ++used > columns) break;
    out.push_back(c);
  }
  return out;
}

std::string Bar(double fraction, int columns, bool color, bool utf8, bool stale) {
  const int filled = static_cast<int>(std::floor(std::clamp(fraction, 0.0, 1.0) * columns + 1e-9));
  std::string done, todo;
  for (int i = 0; i < columns; ++i) {
    (i < filled ? done : todo) += utf8 ? "\xE2\x94\x81" /* ━ */ : i < filled ? "#" : "-";
  }
  if (utf8 && !color) {  // without color the two halves need different shapes
    todo.clear();
    for (int i = filled; i < columns; ++i) todo += "\xE2\x94\x80";  // ─
  }
  if (!color) {
    // Broken where a stale one would be grey.
    const absl::string_view broken = utf8 ? "\xE2\x95\x8C" /* ╌ */ : ".";
    if (stale) {
      done.clear();
      for (int i = 0; i < filled; ++i) absl::StrAppend(&done, broken);
    }
    return absl::StrCat(done, todo);
  }
  if (stale) return absl::StrCat("\x1b[90m", done, todo, "\x1b[0m");
  return absl::StrCat(fraction >= 1 ? "\x1b[32m" : "\x1b[36m", done, "\x1b[90m", todo, "\x1b[0m");
}

std::string Percent(double fraction) {
  // Never 100% before the end.
  const double percent = fraction >= 1 ? 100 : std::floor(std::clamp(fraction, 0.0, 1.0) * 100);
  return absl::StrFormat("%3.0f%%", percent);
}

std::string RowText(const ProgressRow& row) {
  std::string text = PrintableText(row.label);
  if (row.fraction >= 0)
    absl::StrAppend(&text, " ", absl::StripAsciiWhitespace(Percent(row.fraction)));
  if (!row.detail.empty()) absl::StrAppend(&text, "  ", PrintableText(row.detail));
  return text;
}

}  // namespace

TerminalProgressOptions DetectTerminal(int fd) {
  TerminalProgressOptions options;
  const std::string term = EnvironmentVariable("TERM");
  options.terminal = ::isatty(fd) == 1 && !term.empty() && term != "dumb";
  options.color = options.terminal && EnvironmentVariable("NO_COLOR").empty();
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const std::string value = absl::AsciiStrToLower(EnvironmentVariable(name));
    if (value.empty()) continue;
    options.utf8 = absl::StrContains(value, "utf-8") || absl::StrContains(value, "utf8");
    break;  // the first that is set decides (setlocale(3))
  }
  return options;
}

std::string ShortDuration(absl::Duration duration) {
  if (duration >= absl::Hours(24 * 999)) return "999d";
  const int64_t seconds =
      std::max<int64_t>(0, absl::ToInt64Seconds(duration + absl::Milliseconds(500)));
  if (seconds < 60) return absl::StrCat(seconds, "s");
  if (seconds < 3600) return absl::StrFormat("%dm%02ds", seconds / 60, seconds % 60);
  if (seconds < 86400) return absl::StrFormat("%dh%02dm", seconds / 3600, seconds / 60 % 60);
  return absl::StrFormat("%dd%02dh", seconds / 86400, seconds / 3600 % 24);
}

std::vector<std::string> RenderProgress(const std::vector<ProgressRow>& rows, int width, int height,
                                        bool color, bool utf8) {
  std::vector<std::string> lines;
  // The last column stays free: writing it makes some terminals wrap.
  const int columns = std::max(10, width) - 1;
  const int max_rows = std::max(2, height - 1);
  size_t num_shown = rows.size();
  if (num_shown > static_cast<size_t>(max_rows)) num_shown = max_rows - 1;
  int label_columns = 0;
  for (size_t i = 0; i < num_shown; ++i) {
    label_columns = std::max(label_columns, Columns(rows[i].label));
  }
  label_columns = std::min(label_columns, columns / 2);
  // Bar and label; what remains belongs to the detail.
  const int bar_columns = std::clamp(columns / 3, kMinBarColumns, kMaxBarColumns);
  for (size_t i = 0; i < num_shown; ++i) {
    const ProgressRow& row = rows[i];
    const std::string label = Cut(row.label, label_columns);
    std::string line =
        absl::StrCat(label, std::string(std::max(0, label_columns - Columns(label)), ' '));
    int used = label_columns;
    if (row.fraction >= 0 && used + bar_columns + 7 <= columns) {
      absl::StrAppend(&line, "  ", Bar(row.fraction, bar_columns, color, utf8, row.stale), " ",
                      Percent(row.fraction));
      used += bar_columns + 7;
    }
    if (!row.detail.empty() && used + 3 < columns) {
      absl::StrAppend(&line, "  ", Cut(row.detail, columns - used - 2));
    }
    lines.push_back(std::move(line));
  }
  if (num_shown < rows.size()) {
    lines.push_back(Cut(absl::StrCat("... and ", rows.size() - num_shown, " more"), columns));
  }
  return lines;
}

TerminalProgress::TerminalProgress(int fd, const TerminalProgressOptions& options,
                                   const Clock& clock)
    : fd_(fd), options_(options), clock_(clock) {}

TerminalProgress::~TerminalProgress() { Finish(); }

void TerminalProgress::Write(absl::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd_, text.data(), text.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return;
    }
    text.remove_prefix(static_cast<size_t>(written));
  }
}

int TerminalProgress::Width() const {
  winsize size = {};
  if (options_.width != 0) return options_.width;
  return ::ioctl(fd_, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

// Moves to the first drawn row and clears from there to the end of the screen. A terminal that has
// become narrower has broken the lines into several rows.
void TerminalProgress::EraseTo(std::string* out) {
  const int width = Width();
  int rows = 0;
  for (const int columns : drawn_) rows += std::max(1, (columns + width - 1) / width);
  if (rows > 0) absl::StrAppend(out, "\x1b[", rows, "A\r\x1b[J");
  drawn_.clear();
}

void TerminalProgress::Redraw() {
  int height = options_.height;
  winsize size = {};
  if (height == 0 && ::ioctl(fd_, TIOCGWINSZ, &size) == 0) height = size.ws_row;
  if (height == 0) height = 24;
  std::string out;
  EraseTo(&out);
  const int width = Width();
  for (const std::string& line :
       RenderProgress(rows_, width, height, options_.color, options_.utf8)) {
    absl::StrAppend(&out, line, "\n");
    drawn_.push_back(Columns(WithoutColors(line)));
  }
  Write(out);
  last_draw_ = clock_.Monotonic();
  dirty_ = false;
}

void TerminalProgress::PrintLines(const std::vector<ProgressRow>& rows) {
  const absl::Duration now = clock_.Monotonic();
  for (const ProgressRow& row : rows) {
    const std::string text = RowText(row);
    const auto last = printed_.find(row.label);
    if (last != printed_.end()) {
      if (last->second.text == text) continue;
      const bool ends = row.fraction >= 1 && last->second.fraction < 1;
      if (!ends && now - last->second.when < options_.line_interval) continue;
    }
    Write(absl::StrCat(text, "\n"));
    printed_[row.label] = {now, text, row.fraction};
  }
}

void TerminalProgress::Update(const std::vector<ProgressRow>& rows) {
  if (!options_.terminal) {
    PrintLines(rows);
    return;
  }
  rows_ = rows;
  dirty_ = true;
  if (drawn_.empty() || clock_.Monotonic() - last_draw_ >= options_.redraw_interval) Redraw();
}

void TerminalProgress::Print(absl::string_view text) {
  const std::string line = PrintableText(text);
  if (!options_.terminal) {
    Write(absl::StrCat(line, "\n"));
    return;
  }
  std::string out;
  const bool redraw = !drawn_.empty();
  EraseTo(&out);
  absl::StrAppend(&out, line, "\n");
  Write(out);
  if (redraw) Redraw();
}

void TerminalProgress::Finish() {
  if (dirty_) Redraw();
  drawn_.clear();
  rows_.clear();
}

void TerminalProgress::Clear() {
  std::string out;
  EraseTo(&out);
  Write(out);
  rows_.clear();
  dirty_ = false;
}

}  // namespace uniquanf
