// Reads what records of 0.1.0 hold otherwise than present ones. Thread safety: free functions.
// Errors: false for bytes that are no such record.
#ifndef UNIQUANF_SERVER_STORE_RECORDS_0_1_H_
#define UNIQUANF_SERVER_STORE_RECORDS_0_1_H_

#include "absl/strings/string_view.h"
#include "common/job/job.h"

namespace uniquanf::server {

bool ReadJob01(absl::string_view bytes, JobFields* job);
bool ReadTask01(absl::string_view bytes, TaskFields* task);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_STORE_RECORDS_0_1_H_
