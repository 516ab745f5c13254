#include "common/base/terminal_progress.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace uniquanf {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

class FakeClock : public Clock {
 public:
  absl::Time Now() const override { return absl::UnixEpoch() + now_; }
  absl::Duration Monotonic() const override { return now_; }
  void Advance(absl::Duration by) { now_ += by; }

 private:
  absl::Duration now_;
};

// What a TerminalProgress wrote so far, through a pipe.
class TerminalProgressTest : public ::testing::Test {
 protected:
  TerminalProgressTest() {
    EXPECT_EQ(pipe2(pipe_, O_NONBLOCK), 0);
    options_.width = 60;
    options_.height = 10;
  }
  ~TerminalProgressTest() override {
    close(pipe_[0]);
    close(pipe_[1]);
  }
  std::string Written() {
    std::string out;
    char buffer[4096];
    ssize_t n;
    while ((n = read(pipe_[0], buffer, sizeof(buffer))) > 0) out.append(buffer, n);
    return out;
  }
  int pipe_[2];
  FakeClock clock_;
  TerminalProgressOptions options_;
};

TEST_F(TerminalProgressTest, PlainLinesAreSparseButFirstAndLastAreNeverDropped) {
  TerminalProgress progress(pipe_[1], options_, clock_);
  for (int i = 0; i <= 100; ++i) {
    progress.Update({{"layer 0", i / 100.0, "loss 1"}});
    clock_.Advance(absl::Milliseconds(100));  // 10 s in all, a line every 5 s
  }
  progress.Finish();
  EXPECT_EQ(Written(), "layer 0 0%  loss 1\nlayer 0 50%  loss 1\nlayer 0 100%  loss 1\n");
}

TEST_F(TerminalProgressTest, PlainOutputHasNoEscapesAndRepeatsNothing) {
  TerminalProgress progress(pipe_[1], options_, clock_);
  progress.Update({{"job", -1, "waiting"}});
  clock_.Advance(absl::Hours(1));
  progress.Update({{"job", -1, "waiting"}});
  EXPECT_EQ(Written(), "job  waiting\n");
}

TEST_F(TerminalProgressTest, TerminalRedrawsInPlaceAndThrottles) {
  options_.terminal = true;
  TerminalProgress progress(pipe_[1], options_, clock_);
  progress.Update({{"a", 0.1, ""}, {"b", 0.2, ""}});
  EXPECT_THAT(Written(), Not(HasSubstr("\x1b[")));
  progress.Update({{"a", 0.3, ""}, {"b", 0.4, ""}});
  EXPECT_EQ(Written(), "") << "too soon to redraw";
  clock_.Advance(absl::Seconds(1));
  progress.Update({{"a", 0.5, ""}});
  const std::string redrawn = Written();
  EXPECT_THAT(redrawn, ::testing::StartsWith("\x1b[2A\r\x1b[J"));
  EXPECT_THAT(redrawn, HasSubstr(" 50%"));
  progress.Print("a message");
  const std::string printed = Written();
  EXPECT_THAT(printed, ::testing::StartsWith("\x1b[1A\r\x1b[J"
                                             "a message\n"));
  progress.Update({{"a", 1, "done"}});
  progress.Finish();
  EXPECT_THAT(Written(), HasSubstr("100%  done\n")) << "the last state must reach the screen";
}

// A narrower terminal breaks each line into several rows: all of them are erased.
TEST(TerminalProgressResizeTest, NothingStaysAfterAChangeOfWidth) {
  int controller = -1, terminal = -1;
  winsize size = {};
  size.ws_row = 24;
  size.ws_col = 100;
  ASSERT_EQ(openpty(&controller, &terminal, nullptr, nullptr, &size), 0);
  FakeClock clock;
  TerminalProgressOptions options;
  options.terminal = true;
  options.color = true;
  TerminalProgress progress(terminal, options, clock);
  const std::string detail(60, 'x');
  progress.Update({{"job", 0.5, detail}, {"  layer 0", -1, "short"}});
  size.ws_col = 40;
  ASSERT_EQ(ioctl(terminal, TIOCSWINSZ, &size), 0);
  char buffer[4096];
  ssize_t n = read(controller, buffer, sizeof(buffer));
  ASSERT_GT(n, 0);
  clock.Advance(absl::Seconds(1));
  progress.Update({{"job", 0.6, detail}, {"  layer 0", -1, "short"}});
  n = read(controller, buffer, sizeof(buffer));
  ASSERT_GT(n, 0);
  // The first line of 99 columns has become three rows of 40; the second stays one.
  EXPECT_THAT(std::string(buffer, n), ::testing::StartsWith("\x1b[4A\r\x1b[J"));
  close(controller);
  close(terminal);
}

TEST(RenderProgressTest, LinesFitTheScreen) {
  std::vector<ProgressRow> rows;
  for (int i = 0; i < 20; ++i) {
    rows.push_back({absl::StrCat("layer ", i), i / 20.0, std::string(200, 'x')});
  }
  for (int width = 5; width < 200; width += 7) {
    const auto lines = RenderProgress(rows, width, 8, false, false);
    EXPECT_EQ(lines.size(), 7u);
    for (const auto& line : lines) EXPECT_LT(line.size(), static_cast<size_t>(std::max(10, width)));
    if (width > 20) {
      EXPECT_EQ(lines.back(), "... and 14 more");
    }
  }
}

TEST(RenderProgressTest, BarShowsTheFractionAndNever100BeforeTheEnd) {
  EXPECT_THAT(RenderProgress({{"a", 0.5, ""}}, 40, 10, false, false),
              ElementsAre("a  ######-------  50%"));
  EXPECT_THAT(RenderProgress({{"a", 0.9999, ""}}, 40, 10, false, false)[0], EndsWith(" 99%"));
  EXPECT_THAT(RenderProgress({{"a", 1, ""}}, 40, 10, false, false)[0], EndsWith("100%"));
  EXPECT_THAT(RenderProgress({{"a", 7, ""}}, 40, 10, false, false)[0], EndsWith("100%"));
  EXPECT_THAT(RenderProgress({{"a", -1, "waiting"}}, 40, 10, false, false),
              ElementsAre("a  waiting"));
}

TEST(RenderProgressTest, ControlCharactersOfAServerDoNotReachTheTerminal) {
  EXPECT_THAT(RenderProgress({{"a\x1b[2J", -1, "b\r\n"}}, 40, 10, false, true)[0],
              Not(::testing::ContainsRegex("[\x1b\r\n]")));
}

TEST(ShortDurationTest, TwoUnitsRounded) {
  EXPECT_EQ(ShortDuration(absl::ZeroDuration()), "0s");
  EXPECT_EQ(ShortDuration(absl::Milliseconds(59600)), "1m00s");
  EXPECT_EQ(ShortDuration(absl::Seconds(185)), "3m05s");
  EXPECT_EQ(ShortDuration(absl::Minutes(127)), "2h07m");
  EXPECT_EQ(ShortDuration(absl::Hours(76)), "3d04h");
  EXPECT_EQ(ShortDuration(absl::InfiniteDuration()), "999d");
  EXPECT_EQ(ShortDuration(-absl::Seconds(5)), "0s");
}

}  // namespace
}  // namespace uniquanf
