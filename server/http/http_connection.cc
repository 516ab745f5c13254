#include "server/http/http_connection.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"

namespace uniquanf::server {
namespace {

constexpr size_t kBufferBytes = 8192;

absl::Duration Now() { return SystemClock().Monotonic(); }

std::string TextOf(const ASN1_STRING* text) {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
          static_cast<size_t>(ASN1_STRING_length(text))};
}

// What a verified certificate says, as gRPC reads it.
PeerNames NamesOf(X509* certificate) {
  PeerNames names;
  auto* const alternatives = static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; i < sk_GENERAL_NAME_num(alternatives); ++i) {
    const GENERAL_NAME* const name = sk_GENERAL_NAME_value(alternatives, i);
    if (name->type == GEN_URI) names.uris.push_back(TextOf(name->d.uniformResourceIdentifier));
    if (name->type == GEN_DNS) names.dns_names.push_back(TextOf(name->d.dNSName));
  }
  GENERAL_NAMES_free(alternatives);
  X509_NAME* const subject = X509_get_subject_name(certificate);
  for (int at = -1; (at = X509_NAME_get_index_by_NID(subject, NID_commonName, at)) >= 0;) {
    unsigned char* utf8 = nullptr;
    const int size =
        ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    if (size < 0) continue;
    names.common_name.assign(reinterpret_cast<const char*>(utf8), static_cast<size_t>(size));
    OPENSSL_free(utf8);
  }
  return names;
}

}  // namespace

HttpConnection::HttpConnection(UniqueFd fd, const HttpTimeouts& timeouts, std::string peer_host,
                               int peer_port)
    : fd_(std::move(fd)),
      timeouts_(timeouts),
      peer_host_(std::move(peer_host)),
      peer_port_(peer_port) {}

HttpConnection::~HttpConnection() {
  if (ssl_ != nullptr) SSL_free(ssl_);
}

void HttpConnection::Linger(absl::Duration time) {
  if (failed_) return;
  if (ssl_ != nullptr) SSL_shutdown(ssl_);  // one message; nobody waits for the answer
  failed_ = true;
  shutdown(fd_.get(), SHUT_WR);
  const absl::Duration deadline = Now() + time;
  char dropped[2048];
  while (Now() < deadline) {
    pollfd polled = {fd_.get(), POLLIN, 0};
    poll(&polled, 1, static_cast<int>(absl::ToInt64Milliseconds(deadline - Now())) + 1);
    const ssize_t count = recv(fd_.get(), dropped, sizeof(dropped), 0);
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) return;
  }
}

void HttpConnection::Close() { shutdown(fd_.get(), SHUT_RDWR); }

bool HttpConnection::Wait(ssize_t result, bool writing, absl::Duration deadline) {
  short events = writing ? POLLOUT : POLLIN;
  if (ssl_ != nullptr) {
    const int error = SSL_get_error(ssl_, static_cast<int>(result));
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) return false;
    events = error == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN;
  } else if (result == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
    return false;
  }
  while (true) {
    const absl::Duration left = deadline - Now();
    if (left <= absl::ZeroDuration()) return false;
    pollfd polled = {fd_.get(), events, 0};
    const int ready = poll(&polled, 1, static_cast<int>(absl::ToInt64Milliseconds(left)) + 1);
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

bool HttpConnection::StartTls(SSL_CTX* context) {
  ssl_ = SSL_new(context);
  if (ssl_ == nullptr || SSL_set_fd(ssl_, fd_.get()) != 1) return false;
  const absl::Duration deadline = Now() + timeouts_.handshake;
  while (true) {
    ERR_clear_error();
    const int result = SSL_accept(ssl_);
    if (result == 1) break;
    if (!Wait(result, /*writing=*/false, deadline)) {
      failed_ = true;
      return false;
    }
  }
  if (X509* const certificate = SSL_get1_peer_certificate(ssl_); certificate != nullptr) {
    if (SSL_get_verify_result(ssl_) == X509_V_OK) certificate_ = NamesOf(certificate);
    X509_free(certificate);
  }
  return true;
}

ssize_t HttpConnection::ReadSome(char* data, size_t size, absl::Duration deadline) {
  while (true) {
    ERR_clear_error();
    const ssize_t count = ssl_ != nullptr
                              ? SSL_read(ssl_, data, static_cast<int>(std::min(size, kBufferBytes)))
                              : recv(fd_.get(), data, size, 0);
    if (count > 0) return count;
    if (!Wait(count, /*writing=*/false, deadline)) return -1;
  }
}

bool HttpConnection::AwaitRequest() {
  if (buffer_at_ < buffer_.size()) return true;
  buffer_.resize(kBufferBytes);
  buffer_at_ = 0;
  const ssize_t count = ReadSome(buffer_.data(), buffer_.size(), Now() + timeouts_.idle);
  buffer_.resize(count < 0 ? 0 : static_cast<size_t>(count));
  return count > 0;
}

void HttpConnection::BeginRequest(size_t bytes) {
  bytes_left_ = bytes;
  read_deadline_ = Now() + timeouts_.request;
}

ssize_t HttpConnection::read(char* data, size_t size) {
  size = std::min(size, bytes_left_);
  if (size == 0 || failed_) return -1;
  if (buffer_at_ == buffer_.size()) {
    buffer_.resize(kBufferBytes);
    buffer_at_ = 0;
    const ssize_t count = ReadSome(buffer_.data(), buffer_.size(), read_deadline_);
    buffer_.resize(count < 0 ? 0 : static_cast<size_t>(count));
    if (count < 0) return -1;
  }
  size = std::min(size, buffer_.size() - buffer_at_);
  std::copy_n(buffer_.begin() + static_cast<ptrdiff_t>(buffer_at_), size, data);
  buffer_at_ += size;
  bytes_left_ -= size;
  return static_cast<ssize_t>(size);
}

bool HttpConnection::ReadBody(size_t size, std::string* body) {
  bytes_left_ = size;
  body->clear();
  while (body->size() < size) {
    char piece[4096];
    const ssize_t count = read(piece, std::min(sizeof(piece), size - body->size()));
    if (count <= 0) return false;
    body->append(piece, static_cast<size_t>(count));
  }
  return true;
}

ssize_t HttpConnection::write(const char* data, size_t size) {
  const absl::Duration deadline = Now() + timeouts_.write;
  size_t sent = 0;
  while (sent < size && !failed_) {
    ERR_clear_error();
    const ssize_t count =
        ssl_ != nullptr
            ? SSL_write(ssl_, data + sent, static_cast<int>(std::min(size - sent, size_t{1} << 20)))
            : send(fd_.get(), data + sent, size - sent, MSG_NOSIGNAL);
    if (count > 0) {
      sent += static_cast<size_t>(count);
    } else if (!Wait(count == 0 && ssl_ == nullptr ? -1 : count, /*writing=*/true, deadline)) {
      failed_ = true;
    }
  }
  return failed_ ? -1 : static_cast<ssize_t>(size);
}

bool HttpConnection::IsGone() {
  if (failed_) return true;
  pollfd polled = {fd_.get(), POLLRDHUP, 0};
  return poll(&polled, 1, 0) > 0 && (polled.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

std::string HttpConnection::peer() const {
  const bool is_ipv6 = peer_host_.find(':') != std::string::npos;
  return is_ipv6 ? absl::StrCat("ipv6:[", peer_host_, "]:", peer_port_)
                 : absl::StrCat("ipv4:", peer_host_, ":", peer_port_);
}

void HttpConnection::get_remote_ip_and_port(std::string& ip, int& port) const {
  ip = peer_host_;
  port = peer_port_;
}
void HttpConnection::get_local_ip_and_port(std::string& ip, int& port) const {
  ip.clear();
  port = 0;
}

}  // namespace uniquanf::server
