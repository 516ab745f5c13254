// Jobs and tasks as the bytes that stores keep (state.proto). Ephemeral fields are left out.
// Decoding reads records of 0.1.0 too, and says so in `is_old` (left alone otherwise; may be null).
// Thread safety: free functions. Errors: kDataLoss (STATE_CORRUPT).
#ifndef UNIQUANF_SERVER_STORE_RECORD_CODEC_H_
#define UNIQUANF_SERVER_STORE_RECORD_CODEC_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/core/types.h"

namespace uniquanf::server {

std::string EncodeJob(const Job& job);
absl::StatusOr<Job> DecodeJob(absl::string_view bytes, bool* is_old = nullptr);
std::string EncodeTask(const Task& task);
absl::StatusOr<Task> DecodeTask(absl::string_view bytes, bool* is_old = nullptr);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_STORE_RECORD_CODEC_H_
