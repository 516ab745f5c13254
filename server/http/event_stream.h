// A stream of replies as server-sent events: `id` is the stream's cursor, `data` a message's JSON,
// and the last one, `event: end`, has a google.rpc.Status. Comments keep the connection open.
//
// Thread safety: the counter is thread-safe; a stream is used by one thread.
#ifndef UNIQUANF_SERVER_HTTP_EVENT_STREAM_H_
#define UNIQUANF_SERVER_HTTP_EVENT_STREAM_H_

#include <httplib.h>

#include <atomic>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "server/http/grpc_relay.h"
#include "server/http/http_connection.h"
#include "server/http/route_table.h"

namespace uniquanf::server {

// How many streams there may be at once.
class StreamSlots {
 public:
  explicit StreamSlots(int max) : max_(max) {}
  // Null: none is left. Its deletion gives it back.
  std::shared_ptr<void> Take();
  int num_taken() const { return taken_; }
  int max() const { return max_; }

 private:
  const int max_;
  std::atomic<int> taken_{0};
};

struct EventStreamOptions {
  absl::Duration keepalive = absl::Seconds(15);  // between comments
  // How long the first reply is waited for: an error that comes until then has its own HTTP code.
  absl::Duration first_wait = absl::Seconds(1);
};

// Answers with the stream of `call`, whose first reply or error it waits for. `resumed`: the client
// has said a cursor; where nothing follows it is then told 204, at which browsers stop asking.
void AnswerWithEvents(const EventStreamOptions& options, const Route& route, bool resumed,
                      std::unique_ptr<RelayedStream> stream, std::shared_ptr<void> slot,
                      HttpConnection* connection, httplib::Response* response);

// An error as the whole answer.
void AnswerWithError(const grpc::Status& status, httplib::Response* response);

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_HTTP_EVENT_STREAM_H_
