#include <cstdio>

#include "common/base/status.h"
#include "uniquanf/client.h"

int main() {
  uniquanf::ClientOptions options;
  options.server = "127.0.0.1:1";
  options.call_timeout = absl::Seconds(5);
  options.retry.max_attempts = 1;
  const auto client = uniquanf::Client::Connect(options);
  if (!client.ok()) return 1;
  const auto job = (*client)->GetJob("jobs/none");
  if (job.ok()) return 1;
  std::puts(uniquanf::ErrorReason(job.status()).c_str());
}
