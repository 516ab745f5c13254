// Progress for people: bars that redraw in place on a terminal, plain lines elsewhere (a log, a
// pipe).
//
// Thread safety: not thread-safe. Ownership: borrows the file descriptor and the clock. Errors: a
// descriptor that cannot be written is ignored, since progress never fails the work.
#ifndef UNIQUANF_COMMON_BASE_TERMINAL_PROGRESS_H_
#define UNIQUANF_COMMON_BASE_TERMINAL_PROGRESS_H_

#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/base/clock.h"

namespace uniquanf {

struct ProgressRow {
  std::string label;     // what, and the row's identity between updates
  double fraction = -1;  // 0..1; below 0: unknown, shown without a bar
  std::string detail;    // behind the bar: "loss 1.2e-3, 1m20s left"
  bool stale = false;    // shown grey: nobody knows whether it is still so
};

struct TerminalProgressOptions {
  // Bars instead of lines. DetectTerminal() finds out.
  bool terminal = false;
  bool color = false;
  bool utf8 = false;
  int width = 0;   // columns; 0: asked at every redraw
  int height = 0;  // rows; 0: asked at every redraw
  // Redraws on a terminal, and lines a row elsewhere, are at least this far apart. A row's first
  // and last line are never dropped.
  absl::Duration redraw_interval = absl::Milliseconds(100);
  absl::Duration line_interval = absl::Seconds(5);
};

// Whether `fd` is a terminal that can redraw (TERM is not "dumb"), and takes color (NO_COLOR is
// unset or empty, see no-color.org) and UTF-8 (LC_ALL, LC_CTYPE, LANG).
TerminalProgressOptions DetectTerminal(int fd);

class TerminalProgress {
 public:
  TerminalProgress(int fd, const TerminalProgressOptions& options, const Clock& clock);
  // Calls Finish.
  ~TerminalProgress();
  TerminalProgress(const TerminalProgress&) = delete;
  TerminalProgress& operator=(const TerminalProgress&) = delete;

  // Shows `rows`, top to bottom. On a terminal rows beyond its height are counted, not shown.
  void Update(const std::vector<ProgressRow>& rows);
  // A line that stays, above the bars.
  void Print(absl::string_view text);
  // Leaves the last state on the screen and the cursor below it. Update starts anew afterwards.
  void Finish();
  // Takes the bars off the screen. Update starts anew afterwards.
  void Clear();

 private:
  void Redraw();
  void EraseTo(std::string* out);
  // Of the terminal now.
  int Width() const;
  void PrintLines(const std::vector<ProgressRow>& rows);
  void Write(absl::string_view text);

  struct Printed {
    absl::Duration when;
    std::string text;
    double fraction;
  };

  const int fd_;
  const TerminalProgressOptions options_;
  const Clock& clock_;
  std::vector<ProgressRow> rows_;
  std::vector<int> drawn_;  // columns of each line on the screen now
  bool dirty_ = false;      // rows_ is newer than the screen
  absl::Duration last_draw_ = -absl::InfiniteDuration();
  std::map<std::string, Printed> printed_;
};

// The rows as screen lines, none wider than `width` columns. Exposed for tests.
std::vector<std::string> RenderProgress(const std::vector<ProgressRow>& rows, int width, int height,
                                        bool color, bool utf8);

// "42s", "3m05s", "2h07m", "3d04h": two units, rounded.
std::string ShortDuration(absl::Duration duration);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_TERMINAL_PROGRESS_H_
