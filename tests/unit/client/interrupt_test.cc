// In processes of their own, whose end is the outcome. Signals are raised on the one thread that
// asks, so their order is certain; how long two are one wish is said, so no clock decides.
#include "client/cli/interrupt.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>

namespace uniquanf::cli {
namespace {

using ::testing::ExitedWithCode;
using ::testing::KilledBySignal;

constexpr int kInterrupted = 130;

// A command that is interrupted by `first` and ends as it does.
[[noreturn]] void EndInterrupted(int first, absl::Duration same_wish, int while_it_lives,
                                 int afterwards) {
  {
    std::atomic<bool> called{false};
    InterruptHandler handler([&called] { called = true; }, same_wish);
    if (first != 0) {
      std::raise(first);
      while (!called) usleep(100);
      if (!handler.interrupted()) _exit(1);
    }
    if (while_it_lives != 0) std::raise(while_it_lives);
  }
  if (afterwards != 0) std::raise(afterwards);
  _exit(kInterrupted);
}

constexpr absl::Duration kAlways = absl::InfiniteDuration(), kNever = absl::ZeroDuration();

TEST(InterruptTest, TheSecondSignalOfAPairIsTheSameWish) {
  EXPECT_EXIT(EndInterrupted(SIGINT, kAlways, SIGINT, 0), ExitedWithCode(kInterrupted), "");
  EXPECT_EXIT(EndInterrupted(SIGTERM, kAlways, SIGINT, SIGTERM), ExitedWithCode(kInterrupted), "");
}

TEST(InterruptTest, ItIsAlsoWhenTheHandlerIsGone) {
  EXPECT_EXIT(EndInterrupted(SIGINT, kAlways, 0, SIGINT), ExitedWithCode(kInterrupted), "");
  EXPECT_EXIT(EndInterrupted(SIGINT, kAlways, 0, SIGTERM), ExitedWithCode(kInterrupted), "");
}

TEST(InterruptTest, ALaterSignalEndsTheProcess) {
  EXPECT_EXIT(EndInterrupted(SIGINT, kNever, SIGTERM, 0), KilledBySignal(SIGTERM), "");
  EXPECT_EXIT(EndInterrupted(SIGINT, kNever, 0, SIGINT), KilledBySignal(SIGINT), "");
}

TEST(InterruptTest, AFirstSignalThatNobodyWaitsForEndsTheProcess) {
  EXPECT_EXIT(EndInterrupted(0, kAlways, 0, SIGTERM), KilledBySignal(SIGTERM), "");
}

// The last moment: the signal is taken, and the handler's owner ends it before its thread knows.
TEST(InterruptTest, ASignalThatWasTakenIsHandedOver) {
  const auto end = [] {
    bool called = false;
    {
      InterruptHandler handler([&called] { called = true; });
      std::raise(SIGINT);
    }
    _exit(called ? kInterrupted : 0);
  };
  EXPECT_EXIT(end(), ExitedWithCode(kInterrupted), "");
}

TEST(InterruptTest, TheNextHandlerHasAFirstSignalOfItsOwn) {
  const auto end = [] {
    for (int i = 0; i < 2; ++i) {
      bool called = false;
      {
        InterruptHandler handler([&called] { called = true; }, kNever);
        std::raise(SIGINT);
      }
      if (!called) _exit(1);
    }
    _exit(kInterrupted);
  };
  EXPECT_EXIT(end(), ExitedWithCode(kInterrupted), "");
}

}  // namespace
}  // namespace uniquanf::cli
