// The end of a program that has written to standard output. Thread safety: call it last.
#ifndef UNIQUANF_COMMON_BASE_STANDARD_OUTPUT_H_
#define UNIQUANF_COMMON_BASE_STANDARD_OUTPUT_H_

namespace uniquanf {

inline constexpr int kOutputLost = 5;  // exit code

// `exit_code`, unless something that was written to standard output has not arrived (a full disk):
// then, where the code was 0, says so on standard error as `program` and returns kOutputLost.
int ExitCodeAfterOutput(const char* program, int exit_code);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_STANDARD_OUTPUT_H_
