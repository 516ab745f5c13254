#include "worker/agent/failure_class.h"

#include <string>

#include "common/base/status.h"
#include "gtest/gtest.h"

namespace uniquanf {
namespace {

TEST(FailureClassTest, EveryCodeHasItsClass) {
  using Code = absl::StatusCode;
  const struct {
    Code code;
    const char* reason;
    v1::FailureClass expected;
  } rows[] = {
      {Code::kInvalidArgument, "TENSOR_SHAPE", v1::INVALID_INPUT},
      {Code::kAlreadyExists, "OUTPUT_EXISTS", v1::INVALID_INPUT},
      {Code::kNotFound, "OBJECT_NOT_FOUND", v1::INVALID_INPUT},
      {Code::kPermissionDenied, "PERMISSION_DENIED", v1::INVALID_INPUT},
      {Code::kUnauthenticated, "", v1::INVALID_INPUT},
      {Code::kFailedPrecondition, "ALREADY_QUANTIZED", v1::INVALID_INPUT},
      {Code::kOutOfRange, "OBJECT_TOO_SHORT", v1::INVALID_INPUT},
      {Code::kUnimplemented, "CUDA_NOT_BUILT", v1::INVALID_INPUT},
      {Code::kResourceExhausted, "OUT_OF_MEMORY", v1::OUT_OF_MEMORY},
      {Code::kResourceExhausted, "STORAGE_FULL", v1::TRANSIENT},
      {Code::kUnavailable, "STORE_UNAVAILABLE", v1::TRANSIENT},
      {Code::kUnavailable, "TASK_STALLED", v1::TRANSIENT},
      {Code::kDeadlineExceeded, "", v1::TRANSIENT},
      {Code::kAborted, "", v1::TRANSIENT},
      {Code::kDataLoss, "DIGEST_MISMATCH", v1::TRANSIENT},
      {Code::kInternal, "DEVICE_ERROR", v1::TRANSIENT},
      {Code::kInternal, "EXCEPTION", v1::INTERNAL},
      {Code::kUnknown, "", v1::INTERNAL},
      {Code::kCancelled, "", v1::INTERNAL},  // nobody asked it to stop
  };
  for (const auto& row : rows) {
    const absl::Status status = MakeError(row.code, row.reason, "m");
    EXPECT_EQ(FailureClassOf(status), row.expected) << status;
  }
}

TEST(FailureClassTest, ReasonFallsBackToTheCodesName) {
  EXPECT_EQ(FailureFromStatus(absl::UnknownError("what")).reason(), "UNKNOWN");
  EXPECT_EQ(FailureFromStatus(InvalidInput("TENSOR_SHAPE", "what")).reason(), "TENSOR_SHAPE");
}

TEST(FailureClassTest, LongMessagesAreCutBetweenCharacters) {
  std::string message(1999, 'a');
  message += "é";
  const std::string cut = FailureFromStatus(absl::InternalError(message)).message();
  EXPECT_EQ(cut, std::string(1999, 'a'));
}

}  // namespace
}  // namespace uniquanf
