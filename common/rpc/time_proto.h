// absl::Time and absl::Duration <-> google.protobuf.Timestamp and Duration, rounded down to
// nanoseconds and held within the ranges that protobuf allows (years 1..9999; ±10,000 years).
// Thread safety: free functions, no state.
#ifndef UNIQUANF_COMMON_RPC_TIME_PROTO_H_
#define UNIQUANF_COMMON_RPC_TIME_PROTO_H_

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include "absl/time/time.h"

namespace uniquanf {

google::protobuf::Timestamp TimeToProto(absl::Time time);
absl::Time TimeFromProto(const google::protobuf::Timestamp& proto);

google::protobuf::Duration DurationToProto(absl::Duration duration);
absl::Duration DurationFromProto(const google::protobuf::Duration& proto);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_RPC_TIME_PROTO_H_
