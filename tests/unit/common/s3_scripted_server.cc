#include "tests/unit/common/s3_scripted_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/check.h"

namespace uniquanf {
namespace {

// Reads until `buffer` holds `size` bytes or, with size 0, the end of a header block.
bool Fill(int fd, size_t size, std::string* buffer) {
  while (size > 0 ? buffer->size() < size : buffer->find("\r\n\r\n") == std::string::npos) {
    char chunk[65536];
    const ssize_t count = recv(fd, chunk, sizeof(chunk), 0);
    if (count <= 0) return false;
    buffer->append(chunk, static_cast<size_t>(count));
  }
  return true;
}

bool ReadRequest(int fd, std::string* buffer, ScriptedRequest* request) {
  if (!Fill(fd, 0, buffer)) return false;
  const size_t end = buffer->find("\r\n\r\n") + 4;
  const std::vector<std::string> lines = absl::StrSplit(buffer->substr(0, end - 4), "\r\n");
  const std::vector<std::string> first = absl::StrSplit(lines[0], ' ');
  request->method = first[0];
  request->target = first[1];
  size_t length = 0;
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::pair<std::string, std::string> header =
        absl::StrSplit(lines[i], absl::MaxSplits(':', 1));
    const std::string value(absl::StripAsciiWhitespace(header.second));
    request->headers[absl::AsciiStrToLower(header.first)] = value;
    if (absl::EqualsIgnoreCase(header.first, "content-length")) {
      UQ_CHECK(absl::SimpleAtoi(value, &length));
    }
  }
  if (length > 0 && !Fill(fd, end + length, buffer)) return false;
  request->body = buffer->substr(end, length);
  buffer->erase(0, end + length);
  return true;
}

void SendAll(int fd, absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count <= 0) return;
    bytes.remove_prefix(static_cast<size_t>(count));
  }
}

}  // namespace

ScriptedReply Reply(int status, absl::string_view body, absl::string_view headers) {
  return {absl::StrCat("HTTP/1.1 ", status, " Scripted\r\nContent-Length: ", body.size(), "\r\n",
                       headers, "\r\n", body)};
}

ScriptedReply PartialContent(absl::string_view object, const ScriptedRequest& request,
                             absl::string_view etag) {
  const std::pair<std::string, std::string> range = absl::StrSplit(
      absl::StripPrefix(request.headers.at("range"), "bytes="), absl::MaxSplits('-', 1));
  size_t first = 0, last = 0;
  UQ_CHECK(absl::SimpleAtoi(range.first, &first) && absl::SimpleAtoi(range.second, &last));
  return Reply(206, object.substr(first, last - first + 1),
               absl::StrCat("ETag: ", etag, "\r\nContent-Range: bytes ", first, "-", last, "/",
                            object.size(), "\r\n"));
}

ScriptedReply S3Error(int status, absl::string_view code, absl::string_view message) {
  return Reply(status, absl::StrCat("<?xml version=\"1.0\"?><Error><Code>", code,
                                    "</Code><Message>", message, "</Message></Error>"));
}

ScriptedServer::ScriptedServer(Handler handler) : handler_(std::move(handler)) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  UQ_CHECK(bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  UQ_CHECK(listen(listener_, 64) == 0);
  socklen_t size = sizeof(address);
  UQ_CHECK(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { Accept(); });
}

ScriptedServer::~ScriptedServer() {
  shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  close(listener_);
  std::vector<std::thread> threads;
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    for (int fd : connections_) shutdown(fd, SHUT_RDWR);
    threads = std::move(threads_);
  }
  for (std::thread& thread : threads) thread.join();
}

std::string ScriptedServer::endpoint() const { return absl::StrCat("http://127.0.0.1:", port_); }

std::vector<ScriptedRequest> ScriptedServer::requests() const {
  absl::MutexLock lock(&mutex_);
  return requests_;
}

void ScriptedServer::Accept() {
  for (;;) {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    absl::MutexLock lock(&mutex_);
    connections_.push_back(fd);
    threads_.emplace_back([this, fd] { Serve(fd); });
  }
}

void ScriptedServer::Serve(int fd) {
  std::string buffer;
  ScriptedRequest request;
  while (ReadRequest(fd, &buffer, &request)) {
    ScriptedReply reply;
    {
      absl::MutexLock lock(&mutex_);
      requests_.push_back(request);
      reply = handler_(static_cast<int>(requests_.size()), request);
    }
    SendAll(fd, reply.bytes);
    if (reply.after == ScriptedReply::kHang) {
      char byte;
      while (recv(fd, &byte, 1, 0) > 0) {
      }
    }
    if (reply.after == ScriptedReply::kReset) {
      const linger now = {1, 0};  // close sends RST
      setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    }
    if (reply.after != ScriptedReply::kKeepAlive) break;
    request = ScriptedRequest();
  }
  absl::MutexLock lock(&mutex_);
  for (int& connection : connections_) {
    if (connection == fd) connection = -1;
  }
  close(fd);
}

}  // namespace uniquanf
