// An HTTP server on loopback that misbehaves as told, for faults that no real S3 server makes on
// demand. Each connection has its own thread; requests go to a handler in the order they arrive.
//
// Thread safety: the handler is called under a lock; requests() may be called any time.
#ifndef UNIQUANF_TESTS_UNIT_COMMON_S3_SCRIPTED_SERVER_H_
#define UNIQUANF_TESTS_UNIT_COMMON_S3_SCRIPTED_SERVER_H_

#include <atomic>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

namespace uniquanf {

struct ScriptedRequest {
  std::string method;
  std::string target;                          // path and query as sent
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
};

struct ScriptedReply {
  enum After { kKeepAlive, kClose, kReset, kHang };
  std::string bytes;         // sent as they are
  After after = kKeepAlive;  // kHang: keep silent until the client gives up
};

// A well-formed reply. `headers`: lines with CRLF.
ScriptedReply Reply(int status, absl::string_view body, absl::string_view headers = "");
// A part of an object, as S3 answers a ranged GET.
ScriptedReply PartialContent(absl::string_view object, const ScriptedRequest& request,
                             absl::string_view etag);
// An S3 error document.
ScriptedReply S3Error(int status, absl::string_view code, absl::string_view message = "");

class ScriptedServer {
 public:
  using Handler = std::function<ScriptedReply(int number, const ScriptedRequest& request)>;
  explicit ScriptedServer(Handler handler);
  ~ScriptedServer();

  std::string endpoint() const;
  std::vector<ScriptedRequest> requests() const;

 private:
  void Accept();
  void Serve(int fd);

  const Handler handler_;
  int listener_ = -1;
  int port_ = 0;
  mutable absl::Mutex mutex_;
  std::vector<ScriptedRequest> requests_ ABSL_GUARDED_BY(mutex_);
  std::vector<int> connections_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread acceptor_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_UNIT_COMMON_S3_SCRIPTED_SERVER_H_
