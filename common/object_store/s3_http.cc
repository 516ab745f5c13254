#include "common/object_store/s3_http.h"

#include <curl/curl.h>
#include <signal.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr size_t kMaxIdleHandles = 64;
constexpr size_t kMaxHeaderBytes = 64 << 10;  // all headers of a response

// Once per process: libcurl's global state, and SIGPIPE.
bool InitialiseProcess() {
  static const bool ok = [] {
    struct sigaction action;
    if (sigaction(SIGPIPE, nullptr, &action) == 0 && action.sa_handler == SIG_DFL) {
      signal(SIGPIPE, SIG_IGN);
    }
    return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
  }();
  return ok;
}

struct Transfer {
  const HttpRequest* request;
  HttpResponse* response;
  CURL* handle;
  size_t sent = 0;
  size_t header_bytes = 0;
  bool too_large = false;
};

size_t OnHeader(char* data, size_t size, size_t count, void* user) {
  auto* transfer = static_cast<Transfer*>(user);
  const absl::string_view line = absl::StripAsciiWhitespace(absl::string_view(data, size * count));
  transfer->header_bytes += size * count;
  if (transfer->header_bytes > kMaxHeaderBytes) {
    transfer->too_large = true;
    return 0;
  }
  if (absl::StartsWith(line, "HTTP/")) {
    transfer->response->headers.clear();  // after "100 Continue" the real ones follow
    return size * count;
  }
  const size_t colon = line.find(':');
  if (colon != line.npos) {
    transfer->response->headers[absl::AsciiStrToLower(line.substr(0, colon))] =
        std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
  }
  return size * count;
}

size_t OnBody(char* data, size_t size, size_t count, void* user) {
  auto* transfer = static_cast<Transfer*>(user);
  const HttpRequest& request = *transfer->request;
  HttpResponse* response = transfer->response;
  const size_t num_bytes = size * count;
  long status = 0;
  curl_easy_getinfo(transfer->handle, CURLINFO_RESPONSE_CODE, &status);
  if (status == 206 && request.sink != nullptr) {
    if (num_bytes > request.sink_size_bytes - response->sink_bytes) {
      transfer->too_large = true;
      return 0;
    }
    std::memcpy(request.sink + response->sink_bytes, data, num_bytes);
    response->sink_bytes += num_bytes;
  } else {
    if (num_bytes > request.max_body_bytes - response->body.size()) {
      transfer->too_large = true;
      return 0;
    }
    response->body.append(data, num_bytes);
  }
  return num_bytes;
}

size_t OnSend(char* out, size_t size, size_t count, void* user) {
  auto* transfer = static_cast<Transfer*>(user);
  const absl::string_view rest = transfer->request->body.substr(transfer->sent);
  const size_t num_bytes = std::min(size * count, rest.size());
  std::memcpy(out, rest.data(), num_bytes);
  transfer->sent += num_bytes;
  return num_bytes;
}

// libcurl rewinds the body when a kept-alive connection turns out to be dead.
int OnSeek(void* user, curl_off_t offset, int origin) {
  auto* transfer = static_cast<Transfer*>(user);
  if (origin != SEEK_SET || offset < 0 ||
      static_cast<uint64_t>(offset) > transfer->request->body.size()) {
    return CURL_SEEKFUNC_FAIL;
  }
  transfer->sent = static_cast<size_t>(offset);
  return CURL_SEEKFUNC_OK;
}

// Anything but 0 ends the transfer.
int OnProgress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<Transfer*>(user)->request->stop.StopRequested() ? 1 : 0;
}

void SetMethod(CURL* handle, const HttpRequest& request, Transfer* transfer) {
  if (request.method == "HEAD") {
    curl_easy_setopt(handle, CURLOPT_NOBODY, 1L);
  } else if (request.method == "PUT" || request.method == "POST") {
    curl_easy_setopt(handle, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(handle, CURLOPT_CUSTOMREQUEST, request.method.c_str());
    curl_easy_setopt(handle, CURLOPT_INFILESIZE_LARGE,
                     static_cast<curl_off_t>(request.body.size()));
    curl_easy_setopt(handle, CURLOPT_READFUNCTION, &OnSend);
    curl_easy_setopt(handle, CURLOPT_READDATA, transfer);
    curl_easy_setopt(handle, CURLOPT_SEEKFUNCTION, &OnSeek);
    curl_easy_setopt(handle, CURLOPT_SEEKDATA, transfer);
    curl_easy_setopt(handle, CURLOPT_UPLOAD_BUFFERSIZE, 512L << 10);
  } else {
    curl_easy_setopt(handle, CURLOPT_HTTPGET, 1L);
    if (request.method != "GET") {
      curl_easy_setopt(handle, CURLOPT_CUSTOMREQUEST, request.method.c_str());
    }
  }
}

// Only the host: paths name objects (the caller knows them) and queries may hold signatures.
std::string HostOf(absl::string_view url) {
  const size_t scheme = url.find("://");
  if (scheme != url.npos) url.remove_prefix(scheme + 3);
  return std::string(url.substr(0, url.find_first_of("/?#")));
}

absl::Status CurlError(CURLcode code, const Transfer& transfer) {
  const std::string host = HostOf(transfer.request->url);
  if (transfer.too_large) {
    return MakeError(absl::StatusCode::kOutOfRange, "RESPONSE_TOO_LARGE",
                     absl::StrCat("the response of ", host, " is larger than was asked for"));
  }
  const std::string message = absl::StrCat(host, ": ", curl_easy_strerror(code));
  switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
      return FailedPrecondition(
          "TLS_ERROR", absl::StrCat(message,
                                    "; fix the server's certificate or name the authority that "
                                    "signed it in AWS_CA_BUNDLE"));
    case CURLE_ABORTED_BY_CALLBACK:
      return MakeError(absl::StatusCode::kCancelled, "REQUEST_INTERRUPTED",
                       absl::StrCat("the request to ", host, " was interrupted"));
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
      return InvalidInput("INVALID_URI", message);
    default:
      return Unavailable("STORE_UNAVAILABLE", message);
  }
}

}  // namespace

absl::string_view HttpResponse::Header(const std::string& lower_name) const {
  const auto it = headers.find(lower_name);
  return it == headers.end() ? absl::string_view() : absl::string_view(it->second);
}

HttpTransport::HttpTransport(std::string ca_file) : ca_file_(std::move(ca_file)) {
  InitialiseProcess();
}

HttpTransport::~HttpTransport() {
  absl::MutexLock lock(&mutex_);
  for (void* handle : idle_) curl_easy_cleanup(handle);
}

void* HttpTransport::Acquire() {
  {
    absl::MutexLock lock(&mutex_);
    if (!idle_.empty()) {
      void* handle = idle_.back();
      idle_.pop_back();
      return handle;
    }
  }
  return curl_easy_init();
}

void HttpTransport::Release(void* handle) {
  curl_easy_reset(handle);  // forgets options and pointers, keeps connections
  {
    absl::MutexLock lock(&mutex_);
    if (idle_.size() < kMaxIdleHandles) {
      idle_.push_back(handle);
      return;
    }
  }
  curl_easy_cleanup(handle);
}

absl::Status HttpTransport::Perform(const HttpRequest& request, HttpResponse* response) {
  *response = HttpResponse();
  CURL* handle = InitialiseProcess() ? Acquire() : nullptr;
  if (handle == nullptr) {
    return MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY", "no libcurl handle");
  }
  Transfer transfer{&request, response, handle};
  curl_slist* list = nullptr;
  for (const auto& [name, value] : request.headers) {
    // "Name;" is libcurl's way to send a header without a value.
    const std::string line =
        value.empty() ? absl::StrCat(name, ";") : absl::StrCat(name, ": ", value);
    list = curl_slist_append(list, line.c_str());
  }
  // Without this libcurl waits up to a second for "100 Continue" before it sends a large body.
  list = curl_slist_append(list, "Expect:");
  std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> headers(list, &curl_slist_free_all);

  curl_easy_setopt(handle, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(handle, CURLOPT_USERAGENT, "uniquanf");
  curl_easy_setopt(handle, CURLOPT_PATH_AS_IS, 1L);
  curl_easy_setopt(handle, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle, CURLOPT_TCP_KEEPALIVE, 1L);
  // Servers and load balancers close idle connections after about a minute; do not race them.
  curl_easy_setopt(handle, CURLOPT_MAXAGE_CONN, 30L);
  curl_easy_setopt(handle, CURLOPT_BUFFERSIZE, 512L << 10);
  curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS,
                   static_cast<long>(absl::ToInt64Milliseconds(request.connect_timeout)));
  curl_easy_setopt(handle, CURLOPT_LOW_SPEED_LIMIT, 1024L);
  curl_easy_setopt(
      handle, CURLOPT_LOW_SPEED_TIME,
      static_cast<long>(std::max<int64_t>(1, absl::ToInt64Seconds(request.stall_timeout))));
  if (request.bypass_proxy) curl_easy_setopt(handle, CURLOPT_NOPROXY, "*");
  if (!ca_file_.empty()) curl_easy_setopt(handle, CURLOPT_CAINFO, ca_file_.c_str());
  curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, &OnHeader);
  curl_easy_setopt(handle, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, &OnBody);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, &transfer);
  if (request.stop.CanStop()) {
    curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, &OnProgress);
    curl_easy_setopt(handle, CURLOPT_XFERINFODATA, &transfer);
  }
  SetMethod(handle, request, &transfer);

  const CURLcode code = curl_easy_perform(handle);
  long status = 0;
  curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
  response->status = static_cast<int>(status);
  Release(handle);
  return code == CURLE_OK ? absl::OkStatus() : CurlError(code, transfer);
}

}  // namespace uniquanf
