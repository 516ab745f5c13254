// A message as bytes that are equal for equal messages: map entries in the order of their keys.
// Protobuf's own order of a map differs from one message object to the next.
// Thread safety: free function.
#ifndef UNIQUANF_SERVER_STORE_DETERMINISTIC_BYTES_H_
#define UNIQUANF_SERVER_STORE_DETERMINISTIC_BYTES_H_

#include <google/protobuf/message_lite.h>

#include <string>

namespace uniquanf::server {

std::string DeterministicBytes(const google::protobuf::MessageLite& message);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_STORE_DETERMINISTIC_BYTES_H_
