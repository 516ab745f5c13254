// Matchers for absl::Status and StatusOr: EXPECT_OK(x); EXPECT_THAT(x, FailsWith(code, reason));
// EXPECT_THAT(x, FailsWith(code, reason, HasSubstr("name"))).
#ifndef UNIQUANF_TESTS_SUPPORT_STATUS_MATCHERS_H_
#define UNIQUANF_TESTS_SUPPORT_STATUS_MATCHERS_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/status.h"

namespace uniquanf {

inline const absl::Status& ToStatus(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& ToStatus(const absl::StatusOr<T>& status) {
  return status.status();
}

MATCHER(IsOk, "is OK") {
  *result_listener << ToStatus(arg).ToString();
  return ToStatus(arg).ok();
}

MATCHER_P2(FailsWith, code, reason, "") {
  const absl::Status& status = ToStatus(arg);
  *result_listener << status.ToString() << " with reason " << ErrorReason(status);
  return status.code() == code && ErrorReason(status) == reason;
}

MATCHER_P3(FailsWith, code, reason, message, "") {
  const absl::Status& status = ToStatus(arg);
  *result_listener << status.ToString() << " with reason " << ErrorReason(status);
  return status.code() == code && ErrorReason(status) == reason &&
         ::testing::Matches(message)(std::string(status.message()));
}

}  // namespace uniquanf

#define EXPECT_OK(expression) EXPECT_THAT(expression, ::uniquanf::IsOk())
#define ASSERT_OK(expression) ASSERT_THAT(expression, ::uniquanf::IsOk())

// Declares or assigns `lhs` from a StatusOr, or fails the test.
#define ASSERT_OK_AND_ASSIGN(lhs, expression) \
  ASSERT_OK_AND_ASSIGN_IMPL(UQ_CONCAT(test_statusor_, __LINE__), lhs, expression)
#define ASSERT_OK_AND_ASSIGN_IMPL(statusor, lhs, expression) \
  auto statusor = (expression);                              \
  ASSERT_OK(statusor);                                       \
  lhs = std::move(statusor).value()

#endif  // UNIQUANF_TESTS_SUPPORT_STATUS_MATCHERS_H_
