#include "client/src/caller.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/backoff.h"
#include "common/rpc/call_token.h"
#include "common/rpc/status_proto.h"

namespace uniquanf {
namespace {

// With the default pauses about nine seconds.
constexpr int kFailoverAttempts = 8;

}  // namespace

Caller::Caller(ClientOptions options, std::unique_ptr<ChannelSource> channels)
    : options_(std::move(options)),
      channels_(std::move(channels)),
      random_(std::random_device()()) {}

int Caller::max_attempts() const {
  const int attempts = options_.retry.max_attempts;
  return attempts > 1 && channels_->several() ? std::max(attempts, kFailoverAttempts) : attempts;
}

grpc::Status Caller::Judge(const grpc::Status& status) {
  const bool cut =
      status.error_code() == grpc::StatusCode::CANCELLED && status.error_details().empty();
  if (cut || status.error_code() == grpc::StatusCode::UNAVAILABLE ||
      status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    channels_->Refresh();
  }
  return cut ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server ended the call") : status;
}

void Caller::Pause(absl::Duration pause) {
  const std::chrono::system_clock::time_point end = absl::ToChronoTime(absl::Now() + pause);
  const Channel channel = channels_->Get(absl::ZeroDuration());
  grpc_connectivity_state state = channel->GetState(/*try_to_connect=*/true);
  while (channel->WaitForStateChange(state, end)) {
    state = channel->GetState(true);
    if (state == GRPC_CHANNEL_READY) return;
  }
}

absl::Status Caller::PrepareContext(grpc::ClientContext* context) const {
  if (!options_.traceparent.empty()) context->AddMetadata("traceparent", options_.traceparent);
  return AddToken(options_.token_file, context);
}

absl::Duration Caller::Backoff(int attempt) {
  const absl::Duration pause =
      ExponentialBackoff(options_.retry.initial_backoff, options_.retry.max_backoff, attempt);
  absl::MutexLock lock(&mutex_);
  return WithJitter(pause, std::uniform_real_distribution<double>()(random_));
}

absl::Status Caller::Explain(const grpc::Status& grpc_status, int num_attempts) const {
  const absl::Status status = FromGrpcStatus(grpc_status);
  if (status.ok() || !ErrorReason(status).empty()) return status;
  if (status.code() == absl::StatusCode::kUnavailable) {
    return MakeError(
        status.code(), "SERVER_UNREACHABLE",
        absl::StrCat("cannot reach a server at ", options_.server, ": ", status.message(),
                     num_attempts > 1 ? absl::StrCat(" (tried ", num_attempts, " times)") : ""));
  }
  if (status.code() == absl::StatusCode::kDeadlineExceeded) {
    return MakeError(status.code(), "NO_ANSWER",
                     absl::StrCat("the server at ", options_.server, " did not answer within ",
                                  absl::FormatDuration(options_.call_timeout)));
  }
  if (status.code() == absl::StatusCode::kUnimplemented) {
    return MakeError(status.code(), "NOT_IMPLEMENTED",
                     absl::StrCat("the server at ", options_.server,
                                  " does not offer this call: ", status.message()));
  }
  return status;
}

absl::Status Caller::Run(
    const std::function<grpc::Status(const Channel&, grpc::ClientContext*)>& attempt,
    int* num_attempts) {
  const absl::Time deadline = absl::Now() + options_.call_timeout;
  for (int i = 1;; ++i) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(deadline));
    UQ_RETURN_IF_ERROR(PrepareContext(&context));
    const grpc::Status status = Judge(attempt(channels_->Get(deadline - absl::Now()), &context));
    if (num_attempts != nullptr) *num_attempts = i;
    if (status.ok()) return absl::OkStatus();
    const absl::Duration pause = Backoff(i);
    if (status.error_code() != grpc::StatusCode::UNAVAILABLE || i >= max_attempts() ||
        absl::Now() + pause >= deadline) {
      return Explain(status, i);
    }
    Pause(pause);
  }
}

}  // namespace uniquanf
