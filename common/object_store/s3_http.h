// HTTP/1.1 over libcurl: one request, one attempt, no policy. The retries are in s3_client.h.
//
// Thread safety: HttpTransport is thread-safe; requests run on the calling thread, each on an easy
// handle of a pool, which keeps the handle's connections alive between requests. The process's
// SIGPIPE is set to "ignore" unless it has a handler: libcurl (and OpenSSL below it) write to
// sockets that the peer may have closed.
// Ownership: bodies and sinks are the caller's and outlive the call.
// Errors: kUnavailable for everything that may succeed when tried again (resolve, connect, reset,
// stall, truncated body); kFailedPrecondition (TLS_ERROR) for a certificate that does not verify;
// kOutOfRange (RESPONSE_TOO_LARGE); kCancelled (REQUEST_INTERRUPTED) when the caller wished so. An
// HTTP error status is not an error here. Redirects are never followed: the signature belongs to
// one host. Messages name the host, nothing else.
#ifndef UNIQUANF_COMMON_OBJECT_STORE_S3_HTTP_H_
#define UNIQUANF_COMMON_OBJECT_STORE_S3_HTTP_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/base/stop_token.h"
#include "common/object_store/sigv4.h"

namespace uniquanf {

struct HttpRequest {
  std::string method = "GET";  // GET, HEAD, PUT, POST, DELETE
  std::string url;             // encoded, http or https
  NameValues headers;
  absl::string_view body;  // sent with PUT and POST, also when empty

  // When not null, the body of a 206 response goes here, at most `sink_size_bytes` of it.
  char* sink = nullptr;
  uint64_t sink_size_bytes = 0;
  // Longest body of any other response.
  uint64_t max_body_bytes = 64u << 20;

  absl::Duration connect_timeout = absl::Seconds(10);
  // The transfer fails after this long below 1 KiB/s in either direction. There is no total
  // timeout: a large object on a slow link is not a failure.
  absl::Duration stall_timeout = absl::Seconds(30);
  // Asked about once a second while the transfer lasts, and at its beginning; once it says yes the
  // transfer ends with kCancelled (REQUEST_INTERRUPTED).
  StopToken stop;
  // For link-local metadata services, which must not be asked through a proxy.
  bool bypass_proxy = false;
};

struct HttpResponse {
  int status = 0;                              // 0: no response line arrived
  std::map<std::string, std::string> headers;  // names in lower case, the last of repeated ones
  std::string body;
  uint64_t sink_bytes = 0;  // bytes put into the sink, also when the transfer failed

  // The header's value, or "".
  absl::string_view Header(const std::string& lower_name) const;
};

class HttpTransport {
 public:
  // `ca_file`: a PEM bundle to trust instead of the system's; empty for the system's.
  explicit HttpTransport(std::string ca_file = "");
  ~HttpTransport();  // REQUIRES: no request is running
  HttpTransport(const HttpTransport&) = delete;
  HttpTransport& operator=(const HttpTransport&) = delete;

  // Fills `response` as far as it came, also on an error.
  absl::Status Perform(const HttpRequest& request, HttpResponse* response);

 private:
  void* Acquire();
  void Release(void* handle);

  const std::string ca_file_;
  absl::Mutex mutex_;
  std::vector<void*> idle_ ABSL_GUARDED_BY(mutex_);  // CURL*
};

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_OBJECT_STORE_S3_HTTP_H_
