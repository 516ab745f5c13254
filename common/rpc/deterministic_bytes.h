// A message as bytes that are equal for equal messages: map entries in the order of their keys.
// Protobuf's own order of a map differs from one message object to the next.
// Thread safety: free function.
#ifndef UNIQUANF_COMMON_RPC_DETERMINISTIC_BYTES_H_
#define UNIQUANF_COMMON_RPC_DETERMINISTIC_BYTES_H_

#include <google/protobuf/message_lite.h>

#include <string>

namespace uniquanf {

std::string DeterministicBytes(const google::protobuf::MessageLite& message);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_RPC_DETERMINISTIC_BYTES_H_
