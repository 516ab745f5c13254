// Whether work should end early, asked by whoever does it: a task between two steps, a store while
// it waits for a server.
//
// Copies ask the same question. Thread safety: may be asked from any thread. Ownership: shared, so
// that a store which outlives the task that opened it can go on asking; what the question itself
// refers to must live as long as the last copy.
#ifndef UNIQUANF_COMMON_BASE_STOP_TOKEN_H_
#define UNIQUANF_COMMON_BASE_STOP_TOKEN_H_

#include <concepts>
#include <functional>
#include <memory>
#include <utility>

namespace uniquanf {

class StopToken {
 public:
  // Never asks to stop.
  StopToken() = default;
  // Asks `question`, often and from any thread: once it says yes, work ends soon with kCancelled.
  template <std::invocable Question>
  StopToken(Question question)  // NOLINT(google-explicit-constructor): callers pass lambdas
      : question_(std::make_shared<const std::function<bool()>>(std::move(question))) {}

  bool StopRequested() const { return question_ != nullptr && (*question_)(); }
  // False: asking is pointless.
  bool CanStop() const { return question_ != nullptr; }

 private:
  std::shared_ptr<const std::function<bool()>> question_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_STOP_TOKEN_H_
