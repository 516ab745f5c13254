#include "worker/agent/failure_class.h"

#include <string>

#include "common/base/status.h"
#include "gtest/gtest.h"
#include "worker/task/lost_inputs.h"

namespace uniquanf {
namespace {

TEST(FailureClassTest, EveryCodeHasItsClass) {
  using Code = absl::StatusCode;
  const struct {
    Code code;
    const char* reason;
    v1::FailureClass expected;
  } rows[] = {
      {Code::kInvalidArgument, "INVALID_SPEC", v1::INVALID_INPUT},
      {Code::kInvalidArgument, "INVALID_URI", v1::INVALID_INPUT},
      {Code::kInvalidArgument, "MODEL_NOT_FOUND", v1::ENVIRONMENT},
      {Code::kInvalidArgument, "TENSOR_SHAPE", v1::ENVIRONMENT},
      {Code::kAlreadyExists, "OUTPUT_EXISTS", v1::ENVIRONMENT},
      {Code::kNotFound, "OBJECT_NOT_FOUND", v1::ENVIRONMENT},
      {Code::kPermissionDenied, "PERMISSION_DENIED", v1::ENVIRONMENT},
      {Code::kUnauthenticated, "", v1::ENVIRONMENT},
      {Code::kFailedPrecondition, "ALREADY_QUANTIZED", v1::ENVIRONMENT},
      {Code::kOutOfRange, "OBJECT_TOO_SHORT", v1::ENVIRONMENT},
      {Code::kUnimplemented, "CUDA_NOT_BUILT", v1::ENVIRONMENT},
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

TEST(FailureClassTest, LostInputsAreNamed) {
  const absl::Status status = WithLostInputs(NotFound("OBJECT_NOT_FOUND", "m"), {"aa", "bb"});
  const v1::TaskFailure failure = FailureFromStatus(status);
  EXPECT_EQ(failure.failure_class(), v1::INPUT_LOST);
  EXPECT_EQ(failure.reason(), "OBJECT_NOT_FOUND");
  ASSERT_EQ(failure.missing_sha256_size(), 2);
  EXPECT_EQ(failure.missing_sha256(1), "bb");
}

TEST(FailureClassTest, ReasonFallsBackToTheCodesName) {
  EXPECT_EQ(FailureFromStatus(absl::UnknownError("what")).reason(), "UNKNOWN");
  EXPECT_EQ(FailureFromStatus(InvalidInput("TENSOR_SHAPE", "what")).reason(), "TENSOR_SHAPE");
}

TEST(FailureClassTest, LongMessagesAreCutBetweenCharacters) {
  std::string message(1999, 'a');
  message += "é";
  const std::string cut = FailureFromStatus(absl::InternalError(message)).message();
  EXPECT_EQ(cut, std::string(1999, 'a') + "...");
}

}  // namespace
}  // namespace uniquanf
