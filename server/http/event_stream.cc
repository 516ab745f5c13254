#include "server/http/event_stream.h"

#include <google/protobuf/message.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "server/http/error_page.h"
#include "server/http/request_message.h"

namespace uniquanf::server {
namespace {

using google::protobuf::Message;
using Next = RelayedStream::Next;

// Whether the peer is still there is looked at so often; writing to it would say so later.
constexpr absl::Duration kLook = absl::Seconds(1);

absl::Duration Now() { return SystemClock().Monotonic(); }

class EventStream {
 public:
  EventStream(const EventStreamOptions& options, const Route& route,
              std::unique_ptr<RelayedStream> stream, std::shared_ptr<void> slot,
              HttpConnection* connection)
      : options_(options),
        route_(route),
        slot_(std::move(slot)),
        connection_(connection),
        message_(google::protobuf::MessageFactory::generated_factory()
                     ->GetPrototype(route.method->output_type())
                     ->New()),
        stream_(std::move(stream)) {}

  Next WaitForFirst() { return first_ = stream_->Wait(options_.first_wait, message_.get()); }
  const grpc::Status& status() const { return stream_->status(); }

  // One piece of the answer; false: the connection is to be closed.
  bool Write(httplib::DataSink* sink) {
    if (!begun_) {
      begun_ = true;
      written_at_ = Now();
      return Send(sink, "retry: 2000\n\n");
    }
    const Next next = std::exchange(first_, Next::kTimeout) == Next::kMessage
                          ? Next::kMessage
                          : stream_->Wait(kLook, message_.get());
    switch (next) {
      case Next::kMessage:
        return Send(sink, Event());
      case Next::kEnd:
        if (!Send(sink, absl::StrCat("event: end\ndata: ", StatusJson(status()), "\n\n"))) {
          return false;
        }
        sink->done();
        return true;
      case Next::kTimeout:
        break;
    }
    if (connection_->IsGone()) return false;
    return Now() - written_at_ < options_.keepalive || Send(sink, ":\n\n");
  }

 private:
  bool Send(httplib::DataSink* sink, const std::string& text) {
    written_at_ = Now();
    return sink->write(text.data(), text.size()) && connection_->is_writable();
  }
  std::string Event() const {
    std::string event;
    const bool whole = route_.cursor_unfinished_field.empty() ||
                       GetField(route_.cursor_unfinished_field, *message_).empty();
    if (!route_.cursor_response_field.empty() && whole) {
      const std::string cursor = GetField(route_.cursor_response_field, *message_);
      // A heartbeat has none.
      const bool is_one = !cursor.empty() && cursor != "0";
      if (is_one && cursor.find_first_of(std::string("\r\n\0", 3)) == cursor.npos) {
        absl::StrAppend(&event, "id: ", cursor, "\n");
      }
    }
    const absl::StatusOr<std::string> json = MessageToJson(*message_);
    // JSON has no raw line break.
    absl::StrAppend(&event, "data: ", json.ok() ? *json : "{}", "\n\n");
    return event;
  }

  const EventStreamOptions options_;
  const Route& route_;
  const std::shared_ptr<void> slot_;
  HttpConnection* const connection_;
  const std::unique_ptr<Message> message_;
  const std::unique_ptr<RelayedStream> stream_;
  Next first_ = Next::kTimeout;
  bool begun_ = false;
  absl::Duration written_at_;
};

}  // namespace

std::shared_ptr<void> StreamSlots::Take() {
  if (++taken_ > max_) {
    --taken_;
    return nullptr;
  }
  return {this, [](StreamSlots* slots) { --slots->taken_; }};
}

void AnswerWithError(const grpc::Status& status, httplib::Response* response) {
  response->status = HttpCodeOf(status.error_code());
  if (response->status == 401) response->set_header("WWW-Authenticate", "Bearer");
  if (response->status == 503 || response->status == 429) response->set_header("Retry-After", "1");
  response->set_header("Cache-Control", "no-store");
  response->set_content(StatusJson(status), "application/json");
}

void AnswerWithEvents(const EventStreamOptions& options, const Route& route, bool resumed,
                      std::unique_ptr<RelayedStream> stream, std::shared_ptr<void> slot,
                      HttpConnection* connection, httplib::Response* response) {
  const auto events =
      std::make_shared<EventStream>(options, route, std::move(stream), std::move(slot), connection);
  if (events->WaitForFirst() == Next::kEnd) {
    if (!events->status().ok()) return AnswerWithError(events->status(), response);
    if (resumed) {
      response->status = 204;
      return;
    }
  }
  response->status = 200;
  response->set_header("Cache-Control", "no-store");
  response->set_header("X-Accel-Buffering", "no");  // a proxy that would collect events
  response->set_chunked_content_provider(
      "text/event-stream",
      [events](size_t, httplib::DataSink& sink) { return events->Write(&sink); });
}

}  // namespace uniquanf::server
